"""Printing for a person or a script: consoles, JSON, whole tables, bars; and the table of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sparseformers.progress import PlainConsole, say
from sparseformers.progress import duration as duration
from sparseformers.settings import to_dict

if TYPE_CHECKING:
    from sparseformers.data.pack import PackSummary
    from sparseformers.embedding import EmbedSummary
    from sparseformers.train import RunSummary

WIDEST = 1000  # characters of a line that no table exceeds


def console_for(*, as_json: bool) -> Console:
    """A console on standard output; on standard error where that carries JSON."""
    return PlainConsole(stderr=as_json)


def print_json(content: Mapping[str, Any]) -> None:
    """Writes one JSON object to standard output."""
    print(json.dumps(dict(content), indent=2))


def print_whole(table: Table, console: Console) -> None:
    """Prints a table with nothing cut off, for a figure that is cut off is worth nothing: a narrow terminal wraps the lines."""
    needed = PlainConsole(width=WIDEST).measure(table).maximum
    PlainConsole(width=max(needed, console.width)).print(table, crop=False)


def options(command: Any, *, without: Collection[str]) -> dict[str, Any]:
    """The options of a command by name, as the function of the package that it calls takes them."""
    return {field.name: getattr(command, field.name) for field in fields(command) if field.name not in without}


class Rate(ProgressColumn):
    """The rate, as so many units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
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


@contextmanager
def going_on(console: Console) -> Iterator[None]:
    """Says after Ctrl-C that the work goes on with the same command."""
    try:
        yield
    except KeyboardInterrupt:
        say(console, "stopped; the same command goes on with it")
        raise


def report_work(
    summary: EmbedSummary | PackSummary, title: str, facts: Mapping[str, str], skipped_list: Path, *, as_json: bool
) -> None:
    """Prints what came of a work on images: as JSON, or as a table of ``facts``, the first in bold, and what all works have."""
    if as_json:
        print_json(to_dict(summary))
        return
    table = Table(title=title, show_header=False, title_justify="left")
    for name, fact in facts.items():
        table.add_row(name, fact, style=None if table.row_count else "bold")
    table.add_row("images skipped", f"{summary.skipped:,}" + (f", listed in {skipped_list}" if summary.skipped else ""))
    if summary.went_on_from:
        table.add_row("done before", f"{summary.went_on_from:,} images")
    table.add_row("rate", f"{summary.images_per_second:.1f} images a second, {duration(summary.seconds)}")
    PlainConsole().print(table)


def summary_table(summary: RunSummary) -> Table:
    """The summary of a run as a table."""
    alignment = summary.alignment
    table = Table(title=f"Run {summary.path}", show_header=False, title_justify="left")
    table.add_row("held-out centred cosine", f"{alignment.centred_cosine:.3f}", style="bold")
    table.add_row("cosine", f"{alignment.cosine_mean:.3f} (a constant output has {alignment.constant_baseline:.3f})")
    common = f"{alignment.neighbour_agreement:.1%} (chance {alignment.neighbour_chance:.1%})"
    table.add_row(f"{alignment.neighbours} nearest neighbours in common", common)
    student, teacher = summary.student_cost, summary.teacher_cost
    both = f"student {student.multiply_adds / 1e9:.2f} G, teacher {teacher.multiply_adds / 1e9:.2f} G"
    size = f"{student.size[0]} x {student.size[1]}"
    table.add_row("multiply-adds", f"{both} ({student.multiply_adds / teacher.multiply_adds:.0%}) at {size}")
    table.add_row("parameters", f"student {student.parameters / 1e6:.1f} M, teacher {teacher.parameters / 1e6:.1f} M")
    table.add_row("images seen", f"{summary.samples:,} in {duration(summary.seconds)} ({summary.images_per_second:.1f} a second)")
    table.add_row("waiting for data", f"{summary.data_wait:.1%} of the time")
    table.add_row("peak memory", f"{summary.peak_memory_gib:.1f} GiB")
    table.add_row("images skipped", f"{summary.skipped}")
    if summary.non_finite_steps:
        table.add_row("steps skipped", f"{summary.non_finite_steps} with a loss or gradient that is not a finite number")
    if summary.view_cache is not None:
        table.add_row("cache of views", str(summary.view_cache))
    return table
