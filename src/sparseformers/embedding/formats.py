"""Rows of an index, and the interface of the kinds of output that they are written to.

Legend: b rows, D embedding width, T tokens, N latent tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparseformers.errors import RunError

Columns = Mapping[str, np.ndarray]
"""By name: ``embedding`` b x D, and where asked for ``tokens`` b x T x D and ``rois`` b x N x 4."""
NAME = "file_name"  # the column of file names
Info = Mapping[str, Any]  # a description of how an output was made, as plain JSON values


@dataclass(frozen=True)
class Rows:
    """Consecutive rows: a file name each, and numbers."""

    names: tuple[str, ...]
    columns: Columns

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        names = tuple(name for part in parts for name in part.names)
        return cls(names, {column: np.concatenate([part.columns[column] for part in parts]) for column in parts[0].columns})

    def require_finite(self) -> None:
        """Raises RunError, with the first file, if any number is not finite or does not fit its type."""
        for column, values in self.columns.items():
            finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
            if not finite.all():
                name = self.names[int(finite.argmin())]
                raise RunError(
                    f"The {column} of '{name}' holds numbers that are not finite in {values.dtype}.",
                    "Use --dtype float32; if they are not finite there either, something is wrong with the model.",
                )


@dataclass(frozen=True)
class Finished:
    """All parts of an embedding, in ``folder``; those without any row have no file."""

    folder: Path
    parts: int
    rows: int  # one at least
    skipped: Path


class OutputFormat(ABC):
    """One kind of output: it writes parts, and makes a whole of them."""

    def __init__(self, out: Path) -> None:
        self.out = out

    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """All files that an output of this kind may consist of, the list of skipped images last."""

    @abstractmethod
    def part_name(self, number: int) -> str:
        """The name of a part's file."""

    @abstractmethod
    def write_part(self, path: Path, rows: Rows, info: Info) -> None:
        """Writes the rows of one part, one at least, to ``path``."""

    @abstractmethod
    def install(self, finished: Finished, workplace: Path, info: Info) -> None:
        """Puts the output in its place; may be stopped at any moment and called again with the parts that are still there.

        ``workplace`` is an empty folder on the same disk.
        """

    def part_files(self, finished: Finished) -> Iterator[Path]:
        """The files of the parts that have rows, in order."""
        paths = (finished.folder / self.part_name(number) for number in range(finished.parts))
        return (path for path in paths if path.is_file())

    def taken(self) -> Path | None:
        """The output that is there already, or None; raises RunError if it is none, and must never be replaced."""
        if self.out.is_dir():
            raise RunError(f"The output '{self.out}' is a folder.", "Choose another --out.")
        return next((file for file in self.files() if file.exists()), None)

    def skipped_beside(self) -> Path:
        return self.out.with_name(f"{self.out.name}.skipped.txt")
