"""``view``: a page that is served on a port of this machine, by a thread."""

from __future__ import annotations

import errno
import html
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sparseformers.errors import ConfigError, MissingExtraError, RunError
from sparseformers.settings import with_words
from sparseformers.viewer.config import ViewConfig
from sparseformers.viewer.session import Session

ADDRESS = "127.0.0.1"  # this machine, and nobody else
PORTS_TRIED = 50  # from the one asked for on
FRAME_HEIGHT = 860  # height of the page in a notebook, in pixels
LONGEST_START = 20.0  # seconds


def view(run: str | Path, images: str | Path | Sequence[str | Path] = (), *, port: int = 0, **options: Any) -> Page:
    """Serves the page of ``sparseformers view`` from a thread; at the end of a notebook's cell it shows itself.

    In a notebook::

        page = sparseformers.view("runs/first", ["photos"], beside="runs/second")
        page          # the page, in a frame
        page.url      # its address, for a browser on the same machine
        page.close()  # or: with sparseformers.view("runs/first") as page: ...

    The options are those of :class:`ViewConfig`; any free port is taken by default. Raises MissingExtraError without the extra
    ``view``, another SparseFormersError if a model cannot be loaded, a folder holds no images, or no port is free.
    """
    words = {"run": run, "images": images, "port": port, **options}
    return serve(with_words(ViewConfig, None, words, where="call of view"), framed=True)


def serve(config: ViewConfig, *, framed: bool) -> Page:
    """Loads what a page shows and serves it; ``framed`` allows notebooks on this machine to show it."""
    _require_extra()  # before models are loaded for nothing
    return Page(Session(config), port=config.port, framed=framed)


class Page(AbstractContextManager["Page"]):
    """A page that is served until it is closed; a context manager. In a notebook it shows itself.

    The port is the next free one if ``port`` is in use, any free one for 0; ``framed`` lets notebooks on this machine show it.
    Raises MissingExtraError without starlette or uvicorn, ConfigError if there is no free port, or this one may not be used.
    """

    def __init__(self, session: Session, *, port: int, framed: bool) -> None:
        _require_extra()
        import uvicorn

        from sparseformers.viewer.app import make_app

        self.session, self.asked_port = session, port
        self._socket = free_port(port)
        self.port: int = self._socket.getsockname()[1]
        app = make_app(session, port=self.port, framed=framed)
        quiet: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False}
        self._server = uvicorn.Server(uvicorn.Config(app, lifespan="off", ws="none", timeout_graceful_shutdown=2, **quiet))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="sparseformers.viewer", daemon=True)
        self._thread.start()
        begun = time.monotonic()
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() - begun > LONGEST_START:
                raise RunError(f"The server did not start on port {self.port}.", "Try another --port.")
            time.sleep(0.01)
        session.start()

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}/"

    @property
    def open(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.session.close()
        self._socket.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<page at {self.url}>" if self.open else "<page, closed>"

    def _repr_html_(self) -> str:
        if not self.open:
            return "<p>This page is closed.</p>"
        url = html.escape(self.url)
        return (
            f'<iframe src="{url}" title="Where the model looks" width="100%" height="{FRAME_HEIGHT}" style="border:0"></iframe>'
            f'<p><a href="{url}" target="_blank" rel="noopener">Open it in a window of its own</a></p>'
        )


def _require_extra() -> None:
    for package in ("starlette", "uvicorn"):
        MissingExtraError.require(package, "view")


def free_port(port: int, *, tried: int = PORTS_TRIED) -> socket.socket:
    """A socket on ``port``, or on the next of ``tried`` that is free, or for 0 on any; raises ConfigError if there is none."""
    last = min(port + tried, 65536)
    for candidate in range(port, last):
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if sys.platform != "win32":  # where it would let two servers share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((ADDRESS, candidate))
            bound.listen(64)
            bound.set_inheritable(True)
        except OSError as error:
            bound.close()
            if error.errno == errno.EADDRINUSE:
                continue
            problem = f"Port {candidate} cannot be used ({(error.strerror or str(error)).lower()})."
            raise ConfigError(problem, "Use one from 1024 up, such as 7007.") from None
        return bound
    raise ConfigError(f"The ports {port} to {last - 1} are all in use.", "Give another --port, or --port 0 for any free one.")
