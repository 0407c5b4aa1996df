"""Rows as a folder of Parquet files, a file for each part: nothing is written twice, however many rows there are."""

from __future__ import annotations

import os
from pathlib import Path

from sparseformers.embedding.formats import Finished, Info, OutputFormat
from sparseformers.embedding.parquet import require_pyarrow, write_parquet
from sparseformers.embedding.rows import Rows
from sparseformers.errors import RunError

SKIPPED = "_skipped.txt"
"""The list of skipped images. What reads a folder of Parquet files passes over names that begin with an underscore."""


class ParquetFolder(OutputFormat):
    """A folder of ``part-NNNNNN.parquet`` with the columns of a :class:`~sparseformers.embedding.parquet.ParquetFile`.

    Raises:
        MissingExtraError: if pyarrow is not installed.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        require_pyarrow()

    def files(self) -> tuple[Path, ...]:
        return (self.out, self.out / SKIPPED)

    def part_name(self, number: int) -> str:
        return f"part-{number:06d}.parquet"

    def write_part(self, path: Path, rows: Rows, info: Info) -> None:
        write_parquet(path, rows, info)

    def install(self, finished: Finished, workplace: Path, info: Info) -> None:
        if not finished.folder.is_dir():
            return  # it was put in its place before the stop
        os.replace(finished.skipped, finished.folder / SKIPPED)
        if self.out.is_dir() and any(self.out.iterdir()):
            self.out.rename(workplace / "replaced")
        finished.folder.rename(self.out)

    def taken(self) -> Path | None:
        if self.out.is_file():
            raise RunError(f"The output '{self.out}' is a file.", "Choose another --out, or let it end in .parquet or .npy.")
        if not self.out.is_dir() or not any(self.out.iterdir()):
            return None
        if not (self.out / SKIPPED).is_file():
            problem = f"The folder '{self.out}' is not empty and holds no embeddings, so it is not overwritten."
            raise RunError(problem, "Choose another --out.")
        return self.out
