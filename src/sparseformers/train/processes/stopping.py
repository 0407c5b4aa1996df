"""Being asked to stop: finish the step, save, and say how to go on."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

NOTICE = "\nfinishing the step and saving; Ctrl-C once more stops at once\n"
"""What a person reads on standard error after the first signal."""


class RunStopped(KeyboardInterrupt):
    """A run was asked to stop, and did, with its state saved.

    Args:
        path: the run folder.
        samples: images seen.
        by: the signal that asked.
    """

    def __init__(self, path: Path, *, samples: int, by: signal.Signals) -> None:
        super().__init__(f"stopped by {by.name} after {samples:,} images")
        self.path, self.samples, self.by = path, samples, by

    @property
    def exit_code(self) -> int:
        """Of the program: 130 after Ctrl-C, as shells have it, and 0 after SIGTERM, for all is well."""
        return 130 if self.by == signal.SIGINT else 0

    @property
    def resume_command(self) -> str:
        """What to type to go on."""
        return f"sparseformers resume {shlex.quote(str(self.path))}"


class StopSignals:
    """Notes SIGTERM and Ctrl-C as long as the context lasts, in the main thread; elsewhere it notes nothing.

    A second Ctrl-C raises KeyboardInterrupt, as it does without this.

    Args:
        speaks: whether to say on standard error that the first one was heard.
    """

    def __init__(self, *, speaks: bool) -> None:
        self.speaks = speaks
        self.asked = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.asked and self.speaks:
            os.write(2, NOTICE.encode())  # print may not be called while it is going on
        self.asked = self.asked or number
