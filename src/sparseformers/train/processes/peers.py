"""When one of several processes ends, the others end too, soon and with its name: none waits for what will not come.

Each process keeps a connection to the first one for as long as it trains. The operating system closes it whatever the process
dies of, so this is noticed at once, where a collective operation might wait for half an hour. A process that stops by itself
says why before.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NamedTuple

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from sparseformers.errors import ProcessEndedError, RunError, SparseFormersError
from sparseformers.train.processes.stopping import RunStopped

SECONDS_TO_CONNECT = 60.0
SECONDS_TO_LEARN = 5.0
"""How long a process whose communication has failed waits for news of the one that is the reason."""
SECONDS_TO_LEAVE = 10.0
"""How long a process that has been told may stay in an operation before it is ended."""
SILENCE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""A machine that says nothing for so many seconds, and does not answer so often, is gone."""
GO_ON = "Go on from the last checkpoint by: sparseformers resume, or let the launcher do so with --max-restarts."
EXIT_CODE = 1

LOGGER = logging.getLogger("sparseformers")


class Ending(NamedTuple):
    """Why the training ends."""

    process: int
    """Which process ended first, from 0."""
    problem: str
    """What is wrong, one sentence."""
    remedy: str
    """What to do about it, one sentence."""
    killed: bool
    """Whether it could not say so itself."""


class Peers:
    """The processes of a training, as one of them sees them.

    Args:
        process: which one this is, from 0.
        processes: how many there are.
    """

    def __init__(self, process: int, processes: int) -> None:
        self.process, self.processes = process, processes
        self.ending: Ending | None = None
        self._connections: dict[int, socket.socket] = {}
        self._finished: set[int] = set()
        self._told = threading.Event()
        self._left_at: float | None = None
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Connects every process with the first one; all have to call it."""
        if self.process == 0:
            token = secrets.token_hex(16)
            with _server() as server:
                broadcast_object_list([(server.getsockname()[1], token)])
                self._accept(server, token)
        else:
            place: list[Any] = [None]
            broadcast_object_list(place)
            port, token = place[0]
            self._greet(port, token)
        os.register_at_fork(after_in_child=self._forget)
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def _greet(self, port: int, token: str) -> None:
        host = os.environ.get("MASTER_ADDR", "localhost")
        try:
            connection = socket.create_connection((host, port), timeout=SECONDS_TO_CONNECT)
            _send(connection, {"process": self.process, "token": token})
        except OSError as error:
            raise unreachable(f"process 0 at {host}:{port} does not answer process {self.process} ({error})") from None
        self._keep(0, connection)

    def _accept(self, server: socket.socket, token: str) -> None:
        deadline = time.monotonic() + SECONDS_TO_CONNECT
        while len(self._connections) < self.processes - 1:
            server.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                count = self.processes - 1 - len(self._connections)
                raise unreachable(f"{count} of {self.processes} do not reach process 0") from None
            connection.settimeout(SECONDS_TO_CONNECT)
            with suppress(OSError, ValueError, KeyError):  # whatever else knocks at a port
                greeting = json.loads(connection.makefile("rb").readline(1000))
                if secrets.compare_digest(str(greeting["token"]), token):
                    self._keep(int(greeting["process"]), connection)
                    continue
            connection.close()

    def _keep(self, process: int, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in SILENCE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._connections[process] = connection

    def _forget(self) -> None:
        """A process that reads images outlives its parent by seconds, and would keep the connections open for as long."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _watch(self) -> None:
        """Waits for news from the others, in a thread of its own; passes on what ends the training."""
        with selectors.DefaultSelector() as selector:
            for process, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, (process, bytearray()))
            while self.ending is None and selector.get_map():
                for key, _ in selector.select():
                    process, received = key.data
                    try:
                        data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    except OSError:
                        data = b""
                    received += data
                    *lines, rest = bytes(received).split(b"\n")
                    received[:] = rest
                    for line in lines:
                        self._hear(process, json.loads(line))
                    if not data:
                        selector.unregister(key.fileobj)
                        if process not in self._finished and self._left_at is None:
                            self._end(killed(process, self.processes))
        if self.ending is not None:
            self._leave_after_all()
        for connection in self._connections.values():
            connection.close()

    def _hear(self, process: int, message: dict[str, Any]) -> None:
        if message["kind"] == "finished":
            self._finished.add(process)
        else:
            self._end(Ending(**message["ending"]))

    def _end(self, ending: Ending) -> None:
        with self._lock:
            if self.ending is None:
                self.ending = ending
                self._tell({"kind": "ended", "ending": ending._asdict()}, but=ending.process)
        self._told.set()

    def _tell(self, message: dict[str, Any], but: int = -1) -> None:
        for process, connection in self._connections.items():
            if process != but:
                with suppress(OSError):  # it has ended itself
                    _send(connection, message)

    def _leave_after_all(self) -> None:
        """Ends the process if the training does not come out of an operation that waits for a process that is gone."""
        deadline = time.monotonic() + SECONDS_TO_LEAVE
        while time.monotonic() < deadline:
            if self._left_at is not None:
                return
            time.sleep(0.1)
        ending = self.ending
        if ending is not None and self._speaks(ending):
            LOGGER.error("stopped: %s", ending.problem)
            sys.stderr.write(f"error: {ending.problem}\n       {ending.remedy}\n")
            sys.stderr.flush()
        os._exit(EXIT_CODE)

    def _speaks(self, ending: Ending) -> bool:
        """Whether this process is the one that tells the user: the first one that is still there."""
        return self.process == (1 if ending.killed and ending.process == 0 else 0)

    def finish(self) -> None:
        """Says that this process has done its part."""
        self._left_at = time.monotonic()
        self._tell({"kind": "finished"})
        for connection in self._connections.values():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)

    def leave(self, error: BaseException) -> BaseException:
        """What an error of this process is to be called; the others are told if it is its own.

        Communication fails where another process has ended, so such an error is not the reason but what came of it.
        """
        if isinstance(error, ProcessEndedError | RunStopped) or self.processes == 1:
            return error
        if isinstance(error, RuntimeError | OSError):
            self._told.wait(SECONDS_TO_LEARN)
        elif isinstance(error, SystemExit):  # a launcher terminates the others when one has ended
            self._told.wait(1.0)
        self._left_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, _pass)  # a process that reads images may end now without another error
        own = isinstance(error, SparseFormersError | KeyboardInterrupt)
        if self.ending is not None and self.ending.process != self.process and not own:
            return ProcessEndedError(self.ending.problem, self.ending.remedy, speaks=self._speaks(self.ending))
        ending = self._own_ending(error)
        self._end(ending)
        if own or isinstance(error, SystemExit):
            return error
        return ProcessEndedError(ending.problem, ending.remedy, speaks=self._speaks(ending))

    def _own_ending(self, error: BaseException) -> Ending:
        name = f"Process {self.process} of {self.processes}"
        if isinstance(error, SparseFormersError):
            return Ending(self.process, f"{name} stopped: {error.problem}", error.remedy, killed=False)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return Ending(self.process, f"{name} was interrupted.", GO_ON, killed=False)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Ending(self.process, f"{name} stopped: {text}", "Its traceback is in train.log of the run.", killed=False)

    @contextmanager
    def recorded(self, logger: logging.Logger) -> Iterator[None]:
        """Writes down, once, what ends the training within the context; raises what :meth:`leave` makes of it."""
        try:
            yield
        except RunStopped as stopped:  # all of them do, together
            self.finish()
            if self.process == 0:
                logger.info("%s", stopped)
            raise
        except BaseException as error:
            called = self.leave(error)
            if called is not error and self.ending is not None and self.ending.process == self.process:
                logger.error("traceback", exc_info=error)
            if self.process == 0 or (isinstance(called, ProcessEndedError) and called.speaks):
                logger.error("stopped: %s: %s", type(called).__name__, called)
            if called is error:
                raise
            raise called from None

    def on_termination(self, _signal: int, _frame: FrameType | None) -> None:
        """Leaves the training, unless this process is about to do so anyway and has yet to say why."""
        signal.signal(signal.SIGCHLD, _pass)  # those that read images are terminated too, which is no error now
        if self._left_at is None and self.ending is None:
            raise SystemExit(128 + signal.SIGTERM)


@contextmanager
def together(accelerator: Accelerator) -> Iterator[Peers]:
    """Within it the processes of a training watch over each other.

    Raises:
        ProcessEndedError: if another process has ended, by itself or not.
    """
    peers = Peers(accelerator.process_index, accelerator.num_processes)
    if accelerator.num_processes == 1:
        yield peers
        return
    peers.connect()
    restore = _heed_termination(peers)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # nothing is changed in place
            if peers.process:  # one process of all says it
                warnings.simplefilter("ignore")
            yield peers
    except BaseException as error:
        called = peers.leave(error)
        if called is error:
            raise
        raise called from None
    peers.finish()
    restore()


def _heed_termination(peers: Peers) -> Callable[[], object]:
    """Makes SIGTERM an orderly end, where nothing else heeds it; returns what undoes that."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return lambda: None
    signal.signal(signal.SIGTERM, peers.on_termination)
    return lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _pass(_signal: int, _frame: FrameType | None) -> None:
    """Heeds nothing; a signal that waits to be heeded would complain of being ignored."""


def killed(process: int, processes: int) -> Ending:
    """The ending of a process that could not say why."""
    problem = f"Process {process} of {processes} was killed or lost its machine, so the training stopped."
    return Ending(process, problem, GO_ON, killed=True)


def unreachable(reason: str) -> RunError:
    """The error for processes that cannot connect."""
    return RunError(f"The processes of the training cannot connect: {reason}.", "Check MASTER_ADDR and the firewalls.")


def _server() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")
