"""What a comparison found: measurements by row and seed, with their means and spreads."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.recipes.folder import Conditions, RunMeasurement
from benchmarks.recipes.measure import Measurement
from sparseformers.settings import to_dict
from sparseformers.train.recipe import Recipe


class Spread(NamedTuple):
    """A figure over n seeds: mean, and sample standard deviation (None for a single seed)."""

    mean: float
    deviation: float | None
    n: int


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and sample standard deviation; None if there is no value, or some seeds have none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


class Figures(NamedTuple):
    """The figures of a table's row, accuracies as shares in [0, 1]; top1 only with a classifier of these classes."""

    top1: Spread | None
    centred_cosine: Spread | None
    knn_drop_in: Spread | None
    neighbour_agreement: Spread | None
    multiply_adds: int
    parameters: int
    samples: Spread | None
    minutes: Spread | None


def figures(measurements: Sequence[Measurement], runs: Sequence[RunMeasurement] = ()) -> Figures:
    """The figures of measurements, one for each seed, and of the trainings behind them, if any."""
    evaluations = [measurement.evaluation for measurement in measurements]
    return Figures(
        top1=spread([evaluation.classifier_student for evaluation in evaluations]),
        centred_cosine=spread([evaluation.alignment.centred_cosine for evaluation in evaluations]),
        knn_drop_in=spread([evaluation.knn_drop_in for evaluation in evaluations]),
        neighbour_agreement=spread([evaluation.alignment.neighbour_agreement for evaluation in evaluations]),
        multiply_adds=measurements[0].cost.multiply_adds,
        parameters=measurements[0].cost.parameters,
        samples=spread([run.samples for run in runs]),
        minutes=spread([run.seconds / 60 for run in runs]),
    )


@dataclass(frozen=True)
class RowReport:
    """A row with its trainings that came to an end, and why others did not."""

    row: Recipe
    runs: tuple[RunMeasurement, ...]
    failures: tuple[str, ...] = ()

    @property
    def figures(self) -> Figures | None:
        """Over the seeds; None if no training came to an end."""
        return figures([run.measurement for run in self.runs], self.runs) if self.runs else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.row.name,
            "description": self.row.description,
            "settings": dict(self.row.settings),
            "figures": None if self.figures is None else _plain(self.figures),
            "runs": [to_dict(run) for run in self.runs],
            "failures": list(self.failures),
        }


@dataclass(frozen=True)
class Findings:
    """All that a comparison found."""

    conditions: Conditions
    budget: str
    tokens: int
    teacher: Measurement
    baselines: dict[str, Measurement]
    rows: tuple[RowReport, ...]
    notes: tuple[str, ...] = ()

    def share(self, multiply_adds: int) -> float:
        """Multiply-adds as a share of the teacher's."""
        return multiply_adds / self.teacher.cost.multiply_adds

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        untrained = {"teacher": self.teacher} | self.baselines
        return {
            "conditions": to_dict(self.conditions),
            "budget": self.budget,
            "tokens": self.tokens,
            "untrained": {
                name: {"figures": _plain(figures([measurement])), **to_dict(measurement)}
                for name, measurement in untrained.items()
            },
            "rows": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
        }


def _plain(row: Figures) -> dict[str, Any]:
    return {name: value._asdict() if isinstance(value, Spread) else value for name, value in row._asdict().items()}
