"""Where the time of a pass goes, operator by operator, by each library's own profiler."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PASSES = 3
"""So many are profiled, after one that is not; times are those of one."""


@dataclass(frozen=True)
class Operator:
    """What one kind of operator takes in a pass; on CUDA, one kernel."""

    name: str
    calls: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """The operators of a pass."""

    operators: tuple[Operator, ...]
    trace: Path | None = None

    @property
    def seconds(self) -> float:
        """Of all operators, a pass. On CUDA the device is idle in the rest of it."""
        return sum(operator.seconds for operator in self.operators)


def sorted_operators(called: Iterable[tuple[str, float, float]]) -> tuple[Operator, ...]:
    """Operators by name, those that take longest first.

    Args:
        called: names, calls and seconds, of :data:`PASSES` passes together; a name may come more than once.
    """
    sums: dict[str, tuple[float, float]] = {}
    for name, calls, seconds in called:
        before = sums.get(name, (0.0, 0.0))
        sums[name] = (before[0] + calls, before[1] + seconds)
    found = (Operator(name, calls / PASSES, seconds / PASSES) for name, (calls, seconds) in sums.items() if seconds > 0)
    return tuple(sorted(found, key=lambda operator: -operator.seconds))
