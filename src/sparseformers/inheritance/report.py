"""What inheritance did, and where a student comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sparseformers.errors import WeightsError
from sparseformers.inheritance.shares import Shares, count_parameters
from sparseformers.model import SparseFormer
from sparseformers.teachers import Teacher


class BlockFate(NamedTuple):
    """Where one of the teacher's blocks went."""

    teacher_block: int
    """Index in the teacher, from 0."""
    student_block: int | None
    """Index in the student, in its cortex; None for one that was left behind."""
    fate: str
    """``truncated``, ``tuned`` or ``frozen``."""


@dataclass(frozen=True)
class InheritReport:
    """What inheritance did, for people and for tests."""

    parameters: dict[str, int]
    """Parameters of the student by group: ``new``, ``tuned`` and ``frozen``."""
    teacher_parameters: int
    """Parameters of the teacher."""
    blocks: tuple[BlockFate, ...]
    """The fate of every block of the teacher, in order."""
    left_behind: tuple[str, ...]
    """Parts of the teacher that the student does not have."""

    def lines(self) -> list[str]:
        """The report as sentences."""
        fates = {
            fate: [str(block.teacher_block) for block in self.blocks if block.fate == fate]
            for fate in ("truncated", "tuned", "frozen")
        }
        where = [f"{fate}: {span(numbers)}" for fate, numbers in fates.items()]
        counts = [f"{group} {count / 1e6:.1f}M" for group, count in self.parameters.items()]
        total = sum(self.parameters.values())
        return [
            f"Teacher's blocks {'; '.join(where)}.",
            f"Parameters: {', '.join(counts)}; {total / 1e6:.1f}M in all (the teacher has {self.teacher_parameters / 1e6:.1f}M).",
            f"Left behind: {', '.join(self.left_behind) or 'nothing'}.",
        ]


def span(numbers: Sequence[str]) -> str:
    """Numbers in a row as words: none, the one, or from first to last."""
    return "none" if not numbers else numbers[0] if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def report_on(teacher: Teacher, student: SparseFormer, shares: Shares, left_behind: Sequence[str]) -> InheritReport:
    """The report on a student with ``requires_grad`` set."""
    fates = ["truncated"] * shares.truncate + ["tuned"] * shares.tune + ["frozen"] * shares.freeze
    blocks = tuple(
        BlockFate(index, None if fate == "truncated" else index - shares.truncate, fate) for index, fate in enumerate(fates)
    )
    truncated = [f"blocks {span([str(index) for index in range(shares.truncate)])}"] if shares.truncate else []
    return InheritReport(
        parameters=count_parameters(student),
        teacher_parameters=sum(parameter.numel() for parameter in teacher.parameters()),
        blocks=blocks,
        left_behind=(*left_behind, *truncated),
    )


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
