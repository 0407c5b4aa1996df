"""A report on inheritance, and the provenance of a student."""

from __future__ import annotations

from dataclasses import dataclass

from sparseformers.errors import WeightsError
from sparseformers.inheritance.shares import Shares


@dataclass(frozen=True)
class InheritReport:
    """The parts that were inherited, and those that were left behind."""

    shares: Shares
    parameters: dict[str, int]
    """Parameters of the student by group: ``new``, ``tuned`` and ``frozen``."""
    teacher_parameters: int
    left_behind: tuple[str, ...]
    """Parts of the teacher that the student does not have."""
    notes: tuple[str, ...] = ()
    """Sentences on what is other than asked for."""

    def lines(self) -> list[str]:
        """The report as sentences."""
        begin, fates = 0, []
        for fate, count in (("truncated", self.shares.truncate), ("tuned", self.shares.tune), ("frozen", self.shares.freeze)):
            fates.append(f"{fate}: {_span(begin, count)}")
            begin += count
        truncated = [f"blocks {_span(0, self.shares.truncate)}"] if self.shares.truncate else []
        counts = [f"{group} {count / 1e6:.1f}M" for group, count in self.parameters.items()]
        total = sum(self.parameters.values())
        return [
            f"Teacher's blocks {'; '.join(fates)}.",
            f"Parameters: {', '.join(counts)}; {total / 1e6:.1f}M in all (the teacher has {self.teacher_parameters / 1e6:.1f}M).",
            f"Left behind: {', '.join([*self.left_behind, *truncated]) or 'nothing'}.",
            *self.notes,
        ]


def _span(first: int, count: int) -> str:
    return "none" if not count else str(first) if count == 1 else f"{first} to {first + count - 1}"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The origin of a student; saved with its weights."""

    teacher: str
    """The teacher as it was named."""
    teacher_fingerprint: str
    """SHA-256 of the teacher's weights."""
    shares: Shares
    image_size: tuple[int, int]
    """Height and width in pixels that teacher and student were aligned at."""
    crop: float
    """Share of the shorter side that the central crop keeps."""

    def require_same_teacher(self, fingerprint: str) -> None:
        """Raises WeightsError unless the weights of a teacher loaded again have the ``fingerprint`` of this one."""
        if fingerprint != self.teacher_fingerprint:
            raise WeightsError(
                f"The weights of the teacher '{self.teacher}' are not those that the student was made from.",
                "Find the weights of that time, or bootstrap anew.",
            )
