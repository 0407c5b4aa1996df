"""A route: one model in one precision on one backend."""

from __future__ import annotations

from typing import NamedTuple

from sparseformers.exporting.config import Precision


class Route(NamedTuple):
    """What is timed as one thing."""

    model: str
    precision: Precision
    backend: str

    def __str__(self) -> str:
        return f"{self.model}, {self.precision}, {self.backend}"
