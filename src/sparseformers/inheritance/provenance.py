"""Where a student comes from."""

from __future__ import annotations

from dataclasses import dataclass

from sparseformers.errors import WeightsError
from sparseformers.inheritance.shares import Shares


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a student comes from; saved with its weights."""

    teacher: str
    """The teacher as it was named."""
    teacher_fingerprint: str
    """SHA-256 of the teacher's weights."""
    shares: Shares
    """What became of the teacher's blocks."""
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
