"""Tables of texts, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sparseformers.cli.output import print_whole


@dataclass(frozen=True)
class TextTable:
    """A title, the headings of the columns, a text for each cell, and notes below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def rich(self) -> Table:
        """For a terminal; no text is wrapped, so it may be wider than that."""
        table = Table(title=self.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
        for number, column in enumerate(self.columns):
            table.add_column(column.replace(" ", "\n"), justify="right" if number else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a document."""
        lines = [self.columns, ("---", *("---:" for _ in self.columns[1:])), *self.rows]
        return "\n".join([self.title, "", *(f"| {' | '.join(line)} |" for line in lines), *(f"\n{note}" for note in self.notes)])


def print_tables(tables: Sequence[TextTable], console: Console, *, as_markdown: bool) -> None:
    """Prints tables with their notes: as Markdown on standard output, or to a terminal."""
    if as_markdown:
        print("\n\n".join(table.markdown() for table in tables))
        return
    for table in tables:
        print_whole(table.rich(), console)
        for note in table.notes:
            console.print(note, highlight=False, markup=False, soft_wrap=True)
