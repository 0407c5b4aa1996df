"""Rows as Parquet, which most tools for tables read: one file with a row group for each part."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparseformers.embedding.formats import Finished, Info, OutputFormat, keep, skipped_beside
from sparseformers.embedding.rows import NAME, Rows
from sparseformers.errors import MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa

INFO = b"sparseformers"
"""Key of the file's metadata under which it tells of its making, as JSON."""


class ParquetFile(OutputFormat):
    """A ``.parquet`` file with the columns file_name (string), embedding (list of D), tokens (T lists of D), rois (N lists of 4).

    Raises:
        MissingExtraError: if pyarrow is not installed.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        require_pyarrow()

    def files(self) -> tuple[Path, ...]:
        return self.out, skipped_beside(self.out)

    def part_name(self, number: int) -> str:
        return f"part-{number:06d}.parquet"

    def write_part(self, path: Path, rows: Rows, info: Info) -> None:
        write_parquet(path, rows, info)

    def install(self, finished: Finished, workplace: Path, info: Info) -> None:
        import pyarrow.parquet as pq

        parts = self.part_files(finished)
        first = pq.ParquetFile(next(parts)).read()
        whole = workplace / self.out.name
        with pq.ParquetWriter(whole, first.schema, **_WRITING) as writer:
            writer.write_table(first)
            for part in parts:
                writer.write_table(pq.ParquetFile(part).read())
        keep(whole)
        os.replace(finished.skipped, skipped_beside(self.out))
        os.replace(whole, self.out)


_WRITING: dict[str, Any] = {"compression": "zstd", "use_dictionary": False}
"""Numbers hardly repeat, so that a dictionary of them only costs."""


def write_parquet(path: Path, rows: Rows, info: Info) -> None:
    """Writes rows to a file of their own, as one row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, pa.Array] = {NAME: pa.array(rows.names, pa.string())}
    columns |= {name: _nested(values) for name, values in rows.columns.items()}
    table = pa.table(columns).replace_schema_metadata({INFO: json.dumps(info, sort_keys=True)})
    pq.write_table(table, path, row_group_size=len(rows), **_WRITING)


def _nested(values: np.ndarray) -> pa.Array:
    """b x M as b lists of M numbers; b x M x K as b lists of M lists of K."""
    import pyarrow as pa

    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for width in values.shape[:0:-1]:
        array = pa.FixedSizeListArray.from_arrays(array, width)
    return array


def require_pyarrow() -> None:
    """Raises MissingExtraError unless pyarrow is installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError.for_package("pyarrow", "embed")
