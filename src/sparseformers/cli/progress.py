"""Bars for long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Rate(ProgressColumn):
    """How many a second, of ``unit``."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """The rate of late, or nothing before it is known."""
        return Text("" if task.speed is None else f"{task.speed:.0f} {self.unit}/s")


@contextmanager
def embedding_progress(
    console: Console, what: str, total: int, *, unit: str = "img", doing: str = "embedding"
) -> Iterator[Callable[[int], None]]:
    """A bar over ``total`` images (or another ``unit``) that is gone at the end; gives a function that advances it."""
    columns = (TextColumn(f"{doing} {what}"), BarColumn(), MofNCompleteColumn(), Rate(unit), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.advance(task, done)
