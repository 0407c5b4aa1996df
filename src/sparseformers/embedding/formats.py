"""What an output is made of, whichever kind it is."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseformers.embedding.rows import Rows
from sparseformers.errors import RunError

Info = Mapping[str, Any]
"""What an output tells of its making, as plain JSON values."""


@dataclass(frozen=True)
class Finished:
    """All parts of an embedding."""

    folder: Path
    """Where their files lie."""
    parts: int
    """How many there are; those without any row have no file."""
    rows: int
    """Of all of them together, one at least."""
    skipped: Path
    """The list of what was skipped."""


class OutputFormat(ABC):
    """One kind of output: how parts are written, and how a whole is made of them.

    Args:
        out: the output.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """All that an output of this kind may consist of, the list of skipped images last."""

    @abstractmethod
    def part_name(self, number: int) -> str:
        """The name of a part's file."""

    @abstractmethod
    def write_part(self, path: Path, rows: Rows, info: Info) -> None:
        """Writes the rows of one part, one at least, to ``path``."""

    @abstractmethod
    def install(self, finished: Finished, workplace: Path, info: Info) -> None:
        """Puts the output in its place.

        It can be stopped at any moment and be called again with the same parts, as far as they are there.

        Args:
            finished: the parts.
            workplace: an empty folder on the same disk.
            info: of the making.
        """

    def part_files(self, finished: Finished) -> Iterator[Path]:
        """The files of the parts that have rows, in order."""
        for number in range(finished.parts):
            path = finished.folder / self.part_name(number)
            if path.is_file():
                yield path

    def taken(self) -> Path | None:
        """What is in the place of the output already; None if nothing is.

        Raises:
            RunError: if it is no such output, and must not be replaced even where that was agreed to.
        """
        if self.out.is_dir():
            raise RunError(f"The output '{self.out}' is a folder.", "Choose another --out.")
        return next((file for file in self.files() if file.exists()), None)


def skipped_beside(out: Path) -> Path:
    """The list of skipped images that belongs to an output file."""
    return out.with_name(f"{out.name}.skipped.txt")


def keep(path: Path) -> None:
    """Waits until the content of a file is on the disk, so that no power failure can take it after its name is there."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
