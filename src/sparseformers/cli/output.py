"""What commands have in common when they speak to a person or to a script."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from rich.console import Console
from rich.table import Table

WIDEST = 1000
"""Characters of a line that no table exceeds."""


def console_for(*, as_json: bool) -> Console:
    """A console on standard output; on standard error where that carries JSON."""
    return Console(stderr=as_json)


def print_json(content: Mapping[str, Any]) -> None:
    """Writes one JSON object to standard output."""
    print(json.dumps(dict(content), indent=2))


def print_whole(table: Table, console: Console) -> None:
    """Prints a table with nothing cut off, for a figure that is cut off is worth nothing: a narrow terminal wraps the lines."""
    needed = Console(width=WIDEST).measure(table).maximum
    Console(width=max(needed, console.width)).print(table, crop=False)


def options(command: Any, *, without: Collection[str]) -> dict[str, Any]:
    """The options of a command by name, as the function of the package that it calls takes them."""
    return {field.name: getattr(command, field.name) for field in fields(command) if field.name not in without}
