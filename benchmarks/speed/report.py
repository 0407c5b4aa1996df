"""Findings of a measurement of speed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.backends import Route
from benchmarks.speed.machine import Floor, Machine
from benchmarks.speed.operators import Profile
from sparseformers.evaluation import Cost
from sparseformers.profiling.profile import Latency, median_ratio
from sparseformers.settings import to_dict


@dataclass(frozen=True)
class Model:
    """A model that was measured."""

    name: str
    description: str
    cost: Cost


@dataclass(frozen=True)
class Nearness:
    """Cosine of embeddings to those of the same model in float32, operator by operator in PyTorch."""

    mean: float
    least: float


@dataclass(frozen=True)
class Row:
    """A route at one batch size; what is None was not measured, or cannot be told.

    Multiply-adds are those of one image on this route: fewer than the model's own where it is folded. Seconds are those of each
    pass, turn by turn, in the turns of all other rows of this batch size. The share is of the machine's rate in this precision.
    """

    route: Route
    multiply_adds: int
    seconds: tuple[float, ...]
    latency: Latency
    cosine: Nearness | None
    floor: Floor | None
    share: float | None
    peak_bytes: int | None
    profile: Profile | None = None

    @property
    def batch(self) -> int:
        """Images at a time."""
        return self.latency.batch


@dataclass(frozen=True)
class Circumstances:
    """Machine, images and libraries."""

    device: str
    capability: str
    threads: int
    images: str
    photographs: bool
    versions: dict[str, str]


@dataclass(frozen=True)
class SpeedReport:
    """All rows, in the order of batch sizes, models, precisions and backends, and the machine's rates by batch size."""

    circumstances: Circumstances
    models: tuple[Model, ...]
    machines: dict[int, Machine]
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes."""
        return tuple(self.machines)

    def find(self, batch: int, *, model: str, precision: str | None = None, backends: Sequence[str] = ()) -> list[Row]:
        """The rows of a model at a batch size, the fastest first; of all precisions and backends unless some are named."""
        chosen = [
            row
            for row in self.rows
            if row.batch == batch
            and row.route.model == model
            and precision in (None, row.route.precision)
            and (not backends or row.route.backend in backends)
        ]
        return sorted(chosen, key=lambda row: statistics.median(row.seconds))

    def times_as_fast(self, row: Row, other: Row | None) -> float | None:
        """How many times as fast ``row`` is as ``other``: the median over their turns; None if there is no other."""
        return None if other is None else median_ratio(other.seconds, row.seconds)

    def as_teacher_there(self, row: Row) -> float | None:
        """How many times as fast it is as the teacher in the same precision on the same backend."""
        return self.times_as_fast(row, self._teacher(row.batch, row.route.precision, (row.route.backend,)))

    def as_best_teacher(self, row: Row) -> float | None:
        """How many times as fast it is as the teacher's fastest route."""
        return self.times_as_fast(row, self._teacher(row.batch, None, ()))

    def _teacher(self, batch: int, precision: str | None, backends: Sequence[str]) -> Row | None:
        return next(iter(self.find(batch, model="teacher", precision=precision, backends=backends)), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "circumstances": to_dict(self.circumstances),
            "models": [to_dict(model) for model in self.models],
            "machine": {
                str(batch): {
                    "multiply_adds_per_second": {precision: machine.rate(precision) for precision in machine.product_seconds},
                    "bytes_per_second": machine.bandwidth,
                }
                for batch, machine in self.machines.items()
            },
            "rows": [self._row(row) for row in self.rows],
            "left_out": list(self.left_out),
        }

    def _row(self, row: Row) -> dict[str, Any]:
        names = ("multiply_adds", "latency", "cosine", "floor", "share", "peak_bytes", "seconds", "profile")
        values = to_dict(row)
        return {
            **row.route._asdict(),
            **{name: values[name] for name in names},
            "times_teacher_same_path": self.as_teacher_there(row),
            "times_teacher_best_path": self.as_best_teacher(row),
        }
