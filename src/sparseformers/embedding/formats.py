"""Rows of an index, and the kinds of output that they are written to: a Parquet file, a folder of them, and NumPy arrays.

Legend: b rows, D embedding width, T tokens, N latent tokens.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparseformers.errors import ConfigError, MissingExtraError, RunError
from sparseformers.files import synchronise, write_json

if TYPE_CHECKING:
    import pyarrow as pa

Columns = Mapping[str, np.ndarray]
"""By name: ``embedding`` b x D, and where asked for ``tokens`` b x T x D, ``dense`` b x hw x D and ``rois`` b x N x 4."""
NAME = "file_name"  # the column of file names
Info = Mapping[str, Any]  # a description of how an output was made, as plain JSON values
INFO = b"sparseformers"  # key of a Parquet file's metadata with the description of its making, as JSON
WRITING: dict[str, Any] = {"compression": "zstd", "use_dictionary": False}  # numbers hardly repeat: a dictionary only costs
FOLDER_SKIPPED = "_skipped.txt"  # the list of skipped images; readers of Parquet folders pass over names with an underscore


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
                problem = f"The {column} of '{name}' holds numbers that are not finite in {values.dtype}."
                remedy = "Use --dtype float32; if they are not finite there either, something is wrong with the model."
                raise RunError(problem, remedy)


@dataclass(frozen=True)
class Finished:
    """All parts of an embedding, in ``folder``; those without any row have no file."""

    folder: Path
    parts: int
    rows: int  # one at least
    skipped: Path


class OutputFormat(ABC):
    """One kind of output: it writes parts, and makes a whole of them."""

    part_suffix: str

    def __init__(self, out: Path) -> None:
        self.out = out

    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """All files that an output of this kind may consist of, the list of skipped images last."""

    @abstractmethod
    def write_part(self, path: Path, rows: Rows, info: Info) -> None:
        """Writes the rows of one part, one at least, to ``path``."""

    @abstractmethod
    def install(self, finished: Finished, workplace: Path, info: Info) -> None:
        """Puts the output in its place, also after a stop on the way; ``workplace`` is an empty folder on the same disk."""

    def part_name(self, number: int) -> str:
        return f"part-{number:06d}{self.part_suffix}"

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


class ParquetFile(OutputFormat):
    """A ``.parquet`` file, a row group a part: file_name, embedding (list of D), tokens and dense (lists of D), rois (of 4)."""

    part_suffix = ".parquet"

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        MissingExtraError.require("pyarrow", "embed")

    def files(self) -> tuple[Path, ...]:
        return self.out, self.skipped_beside()

    def write_part(self, path: Path, rows: Rows, info: Info) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, pa.Array] = {NAME: pa.array(rows.names, pa.string())}
        for name, values in rows.columns.items():
            columns[name] = pa.array(np.ascontiguousarray(values).reshape(-1))
            for width in values.shape[:0:-1]:  # b x M as b lists of M numbers, b x M x K as b lists of M lists of K
                columns[name] = pa.FixedSizeListArray.from_arrays(columns[name], width)
        table = pa.table(columns).replace_schema_metadata({INFO: json.dumps(info, sort_keys=True)})
        pq.write_table(table, path, row_group_size=len(rows), **WRITING)

    def install(self, finished: Finished, workplace: Path, info: Info) -> None:
        import pyarrow.parquet as pq

        parts = self.part_files(finished)
        first = pq.ParquetFile(next(parts)).read()
        whole = workplace / self.out.name
        with pq.ParquetWriter(whole, first.schema, **WRITING) as writer:
            writer.write_table(first)
            for part in parts:
                writer.write_table(pq.ParquetFile(part).read())
        synchronise(whole)
        os.replace(finished.skipped, self.skipped_beside())
        os.replace(whole, self.out)


class ParquetFolder(ParquetFile):
    """A folder of Parquet files, one for each part: nothing is written twice, however many rows there are."""

    def files(self) -> tuple[Path, ...]:
        return self.out, self.out / FOLDER_SKIPPED

    def install(self, finished: Finished, workplace: Path, info: Info) -> None:
        if not finished.folder.is_dir():
            return  # it was put in its place before the stop
        os.replace(finished.skipped, finished.folder / FOLDER_SKIPPED)
        if self.out.is_dir() and any(self.out.iterdir()):
            self.out.rename(workplace / "replaced")
        finished.folder.rename(self.out)

    def taken(self) -> Path | None:
        if self.out.is_file():
            raise RunError(f"The output '{self.out}' is a file.", "Choose another --out, or let it end in .parquet or .npy.")
        if not self.out.is_dir() or not any(self.out.iterdir()):
            return None
        if not (self.out / FOLDER_SKIPPED).is_file():
            problem = f"The folder '{self.out}' is not empty and holds no embeddings, so it is not overwritten."
            raise RunError(problem, "Choose another --out.")
        return self.out


class NumpyFile(OutputFormat):
    """``FILE.npy`` (rows x D), which can be mapped into memory.

    Beside it lie ``FILE.names.txt`` (a line each), ``FILE.json`` (how it was made), and where asked for ``FILE.tokens.npy``
    (rows x T x D), ``FILE.dense.npy`` (rows x hw x D) and ``FILE.rois.npy`` (rows x N x 4).
    """

    part_suffix = ".arrays"

    def files(self) -> tuple[Path, ...]:
        endings = ("npy", "tokens.npy", "dense.npy", "rois.npy", "names.txt", "json")
        return *(self._beside(ending) for ending in endings), self.skipped_beside()

    def _beside(self, suffix: str) -> Path:
        return self.out.with_suffix(f".{suffix}") if suffix != "npy" else self.out

    def write_part(self, path: Path, rows: Rows, info: Info) -> None:
        with path.open("wb") as file:
            header = {"names": rows.names, "columns": list(rows.columns)}
            np.save(file, np.frombuffer(json.dumps(header).encode(), dtype=np.uint8))
            for values in rows.columns.values():
                np.save(file, np.ascontiguousarray(values))

    def install(self, finished: Finished, workplace: Path, info: Info) -> None:
        made = [workplace / self._beside("names.txt").name, workplace / self._beside("json").name]
        with made[0].open("w", encoding="utf-8", newline="\n") as file:
            for rows in self._parts(finished):
                for name in rows.names:  # a line each: backslashes and line breaks are written as in Python
                    file.write(name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") + "\n")
        write_json(made[1], info)
        for column in next(self._parts(finished)).columns:
            made.append(workplace / self._beside("npy" if column == "embedding" else f"{column}.npy").name)
            self._write_column(made[-1], column, finished)
        for path in made:
            synchronise(path)
        # First the old one goes and last the new one comes, so that no array ever lies beside another one's names.
        for path in self.files():
            path.unlink(missing_ok=True)
        os.replace(finished.skipped, self.skipped_beside())
        for path in sorted(made, key=lambda path: path.name == self.out.name):
            os.replace(path, self.out.with_name(path.name))

    def _parts(self, finished: Finished) -> Iterator[Rows]:
        for path in self.part_files(finished):
            with path.open("rb") as file:
                header = json.loads(np.load(file).tobytes())
                yield Rows(tuple(header["names"]), {column: np.load(file) for column in header["columns"]})

    def _write_column(self, path: Path, column: str, finished: Finished) -> None:
        with path.open("wb") as file:
            for place, rows in enumerate(self._parts(finished)):
                values = rows.columns[column]
                if not place:
                    shape = (finished.rows, *values.shape[1:])
                    described = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, described)
                file.write(values.data)


FORMATS: dict[str, type[OutputFormat]] = {".parquet": ParquetFile, ".npy": NumpyFile, "": ParquetFolder}  # by ending


def output_format(out: Path) -> OutputFormat:
    """The kind of output that a name means; raises ConfigError for none, MissingExtraError if its library is not installed."""
    if out.suffix.lower() not in FORMATS or out.name in ("", ".."):
        problem = f"'{out}' does not say what to write."
        raise ConfigError(problem, "Let --out end in .parquet or .npy, or name a folder without a dot in its name.")
    return FORMATS[out.suffix.lower()](out)
