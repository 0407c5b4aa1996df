"""Rows of an index: a file name each, and numbers.

Legend: b rows, D embedding width, T tokens, N latent tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparseformers.errors import RunError

Columns = Mapping[str, np.ndarray]
"""By name: ``embedding`` b x D, and where asked for ``tokens`` b x T x D and ``rois`` b x N x 4."""
NAME = "file_name"
"""The name of the column of names."""


@dataclass(frozen=True)
class Rows:
    """Rows in their order."""

    names: tuple[str, ...]
    """b file names."""
    columns: Columns
    """Their numbers."""

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of several, one of which at least, one after the other."""
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
