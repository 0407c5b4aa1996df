"""Rows as NumPy arrays, which can be mapped into memory: one file for the numbers, one for the names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sparseformers.embedding.formats import Finished, Info, OutputFormat, keep, skipped_beside
from sparseformers.embedding.rows import Rows
from sparseformers.files import write_json

EMBEDDING = "embedding"
_BESIDE = ("tokens", "rois")


class NumpyFile(OutputFormat):
    """``FILE.npy`` (rows x D), and beside it ``FILE.names.txt`` (a line each), ``FILE.json`` (how it was made), and where asked
    for ``FILE.tokens.npy`` (rows x T x D) and ``FILE.rois.npy`` (rows x N x 4).
    """

    def files(self) -> tuple[Path, ...]:
        return self.out, *self._columns_beside(), self._names, self._info, skipped_beside(self.out)

    @property
    def _names(self) -> Path:
        return self.out.with_suffix(".names.txt")

    @property
    def _info(self) -> Path:
        return self.out.with_suffix(".json")

    def _columns_beside(self) -> list[Path]:
        return [self.out.with_suffix(f".{column}.npy") for column in _BESIDE]

    def part_name(self, number: int) -> str:
        return f"part-{number:06d}.arrays"

    def write_part(self, path: Path, rows: Rows, info: Info) -> None:
        with path.open("wb") as file:
            header = {"names": rows.names, "columns": list(rows.columns)}
            np.save(file, np.frombuffer(json.dumps(header).encode(), dtype=np.uint8))
            for values in rows.columns.values():
                np.save(file, np.ascontiguousarray(values))

    def install(self, finished: Finished, workplace: Path, info: Info) -> None:
        made = [workplace / self._names.name, workplace / self._info.name]
        with made[0].open("w", encoding="utf-8", newline="\n") as file:
            for rows in self._parts(finished):
                file.writelines(f"{one_line(name)}\n" for name in rows.names)
        write_json(made[1], info)
        for column in next(self._parts(finished)).columns:
            made.append(workplace / (self.out if column == EMBEDDING else self.out.with_suffix(f".{column}.npy")).name)
            self._write_column(made[-1], column, finished)
        for path in made:
            keep(path)
        # First the old one goes and last the new one comes, so that no array ever lies beside another one's names.
        for path in self.files():
            path.unlink(missing_ok=True)
        os.replace(finished.skipped, skipped_beside(self.out))
        for path in sorted(made, key=lambda path: path.name == self.out.name):
            os.replace(path, self.out.with_name(path.name))

    def _parts(self, finished: Finished) -> Iterator[Rows]:
        return (read_part(path) for path in self.part_files(finished))

    def _write_column(self, path: Path, column: str, finished: Finished) -> None:
        with path.open("wb") as file:
            begun = False
            for rows in self._parts(finished):
                values = rows.columns[column]
                if not begun:
                    shape = (finished.rows, *values.shape[1:])
                    described = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, described)
                    begun = True
                file.write(values.data)


def read_part(path: Path) -> Rows:
    """The rows that :meth:`NumpyFile.write_part` wrote."""
    with path.open("rb") as file:
        header = json.loads(np.load(file).tobytes())
        return Rows(tuple(header["names"]), {column: np.load(file) for column in header["columns"]})


def one_line(name: str) -> str:
    """A name on a line of its own: backslashes and line breaks are written as in Python, with backslashes."""
    return name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
