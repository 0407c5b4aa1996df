"""Signs of life of a run in its folder, so that others can tell a slow run from a dead one, also from another machine."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from sparseformers.settings import from_dict, to_dict
from sparseformers.train.checkpoints.state import TrainingState

BEAT_SECONDS = 5.0
"""Time between two signs of life."""
SILENT_SECONDS = 60.0
"""A run that was not heard of for so long is taken for dead."""


@dataclass(frozen=True, kw_only=True)
class Beat:
    """A sign of life."""

    state: Literal["running", "finished", "stopped"]
    """What the process says of itself; it cannot say that it was killed."""
    reason: str = ""
    """Why it stopped."""
    at: float
    """When, in seconds since 1970, by the clock of its machine."""
    host: str
    """The machine."""
    pid: int
    """The process there."""
    samples: int = 0
    """Images seen."""
    progress: float = 0.0
    """Share of the budget that is spent, in [0, 1]."""
    seconds: float = 0.0
    """Time spent training."""


class Heartbeat:
    """Writes signs of life from a thread of its own as long as the context lasts, and how it ended.

    A file that cannot be written stops nothing: the training has to say so itself.

    Args:
        path: the file.
        writes: whether this is the main process; the others are silent.
    """

    def __init__(self, path: Path, *, writes: bool) -> None:
        self.path, self.writes = path, writes
        self._beat = Beat(state="running", at=time.time(), host=socket.gethostname(), pid=os.getpid())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        if self.writes:
            self._write()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.writes:
            return
        self._over.set()
        self._thread.join()
        if kind is None:
            self._beat = dataclasses.replace(self._beat, state="finished")
        else:
            reason = "interrupted" if issubclass(kind, KeyboardInterrupt) else f"{kind.__name__}: {error}"
            self._beat = dataclasses.replace(self._beat, state="stopped", reason=reason)
        self._write()

    def tell(self, state: TrainingState, progress: float) -> None:
        """What the next sign says of the training's place."""
        self._beat = dataclasses.replace(self._beat, samples=state.samples, progress=progress, seconds=state.seconds)

    def _go_on(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._write()

    def _write(self) -> None:
        # Not by way of tempfile, whose lock a data worker that is forked at this moment would inherit for good.
        temporary = self.path.with_name(f".{self.path.name}.part")
        with suppress(OSError):
            temporary.write_text(json.dumps(to_dict(dataclasses.replace(self._beat, at=time.time()))) + "\n", encoding="utf-8")
            os.replace(temporary, self.path)


def read_beat(path: Path) -> Beat | None:
    """The last sign of life; None if there never was one, or it cannot be read."""
    try:
        return from_dict(Beat, json.loads(path.read_text(encoding="utf-8")))
    except Exception:  # a file of another version, or of anything else, says nothing
        return None


def is_gone(beat: Beat) -> bool:
    """Whether its process is known to have ended: only of this machine's own processes can that be said."""
    if os.name != "posix" or beat.host != socket.gethostname():
        return False
    try:
        os.kill(beat.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it is another user's
    return False
