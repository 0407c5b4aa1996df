"""Progress of a measurement of speed in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Steps:
    """A bar that starts anew for each part of the work."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("loading models", total=None)

    def begin(self, what: str, total: int) -> None:
        """Starts a part with so many steps."""
        self._bar.update(self._task, description=what, completed=0, total=total)

    def say(self, what: str) -> None:
        """Names the next step."""
        self._bar.update(self._task, description=what)

    def advance(self) -> None:
        """Ends a step."""
        self._bar.advance(self._task)


@contextmanager
def progress(console: Console) -> Iterator[Steps]:
    """A bar that is gone at the end; nothing without a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Steps(bar)
