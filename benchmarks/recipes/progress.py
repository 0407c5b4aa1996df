"""Progress in a terminal: which training of how many it is, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Trainings:
    """Announces trainings one by one; each has a bar of its own below its announcement.

    Args:
        console: to write to.
        total: how many trainings there are.
        unfinished: how many of them are to be done.
        seconds: of each, where the budget says it; else it is learnt from those that are finished.
    """

    def __init__(self, console: Console, total: int, *, unfinished: int, seconds: float | None) -> None:
        self.console = console
        self.total = total
        self.unfinished = unfinished
        self._seconds = seconds
        self._taken: list[float] = []
        self._announced = 0

    def announce(self, what: str, how: str) -> None:
        """Says which training it is, and whether it starts, goes on, or was finished before."""
        self._announced += 1
        left = self._left()
        time = "" if left is None or not self.unfinished else f"; about {_duration(left)} of training left"
        line = f"training {self._announced} of {self.total}: {what}, {how}{time}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def finished(self, seconds: float, *, before: bool) -> None:
        """Notes how long a training took; ``before`` where it was found finished."""
        self._taken.append(seconds)
        if not before:
            self.unfinished -= 1

    def failed(self) -> None:
        """Notes a training that came to nothing."""
        self.unfinished -= 1

    def _left(self) -> float | None:
        """Seconds that the unfinished ones will take; None before anything is known."""
        if self._seconds is None and not self._taken:
            return None
        each = sum(self._taken) / len(self._taken) if self._seconds is None else self._seconds
        return each * self.unfinished


@contextmanager
def embedding_bar(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over ``total`` images that is gone at the end; gives a function that advances it."""
    columns = (TextColumn("embedding {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda images: bar.advance(task, images)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
