"""What a benchmark found."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.machine import Floor, Machine
from benchmarks.speed.operators import Profile
from benchmarks.speed.routes import Route
from benchmarks.speed.timing import median_ratio
from sparseformers.evaluation import Cost, Latency
from sparseformers.settings import to_dict


@dataclass(frozen=True)
class Model:
    """A model that was measured."""

    name: str
    """As the rows call it."""
    description: str
    """What it is."""
    cost: Cost
    """Parameters and multiply-adds of one image."""


@dataclass(frozen=True)
class Nearness:
    """Cosine of embeddings to those of the same model in float32, operator by operator in PyTorch."""

    mean: float
    """Over the images."""
    least: float
    """Of the worst image."""


@dataclass(frozen=True)
class Row:
    """A route at one batch size."""

    route: Route
    """Model, precision and backend."""
    multiply_adds: int
    """Of one image on this route: fewer than the model's own where it is folded."""
    seconds: tuple[float, ...]
    """Of each pass, turn by turn: the turns are those of all other rows of this batch size."""
    latency: Latency
    """Their median and percentiles."""
    cosine: Nearness | None
    """How near its embeddings are; None if there were no images that could tell."""
    floor: Floor | None
    """What it cannot be faster than; None where the machine's rate in this precision is not known."""
    share: float | None
    """Of the machine's rate of matrix products in this precision; None where that is not known."""
    peak_bytes: int | None
    """Peak memory; None if not measured."""
    profile: Profile | None = None
    """Where the time goes; None if not asked for."""

    @property
    def batch(self) -> int:
        """Images at a time."""
        return self.latency.batch


@dataclass(frozen=True)
class Circumstances:
    """What was measured on."""

    device: str
    """The processor or the device."""
    capability: str
    """Its widest instructions that PyTorch uses."""
    threads: int
    """Of each backend on the CPU."""
    images: str
    """What the cosine was taken over."""
    photographs: bool
    """Whether these were photographs."""
    versions: dict[str, str]
    """Of the libraries."""


@dataclass(frozen=True)
class BenchmarkReport:
    """All rows, and what they were measured beside."""

    circumstances: Circumstances
    """Machine, images and libraries."""
    models: tuple[Model, ...]
    """What was measured."""
    machines: dict[int, Machine]
    """What the machine reached in the turns of each batch size."""
    rows: tuple[Row, ...]
    """In the order of batch sizes, models, precisions, backends."""
    left_out: tuple[str, ...]
    """A line for each combination that there is not, with the reason."""

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
