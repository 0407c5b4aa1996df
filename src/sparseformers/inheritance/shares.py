"""The split of a teacher's depth, what of a student is new, tuned or frozen by it, and what is said and saved of that."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sparseformers.errors import ConfigError, WeightsError
from sparseformers.model import SparseFormer
from sparseformers.model.grid import GridFront
from sparseformers.model.mixed_resolution import MixedResolutionFront


@dataclass(frozen=True)
class InheritReport:
    """The parts that were inherited, and those that were left behind."""

    shares: Shares
    parameters: dict[str, int]  # of the student by group: ``new``, ``tuned`` and ``frozen``
    teacher_parameters: int
    left_behind: tuple[str, ...]  # parts of the teacher that the student does not have
    notes: tuple[str, ...] = ()  # sentences on what is other than asked for

    def lines(self) -> list[str]:
        """The report as sentences."""
        begin, fates = 0, []
        for fate, count in (("truncated", self.shares.truncate), ("tuned", self.shares.tune), ("frozen", self.shares.freeze)):
            fates.append(f"{fate}: {_span(begin, count)}")
            begin += count
        truncated = [f"blocks {_span(0, self.shares.truncate)}"] if self.shares.truncate else []
        counts = [f"{group.replace('_', '-')} {count / 1e6:.1f}M" for group, count in self.parameters.items()]
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

    teacher: str  # as it was named
    teacher_fingerprint: str  # SHA-256 of its weights
    shares: Shares
    image_size: tuple[int, int]  # height and width in pixels that teacher and student were aligned at
    crop: float  # share of the shorter side that the central crop keeps

    def require_same_teacher(self, fingerprint: str) -> None:
        """Raises WeightsError unless the weights of a teacher loaded again have the ``fingerprint`` of this one."""
        if fingerprint != self.teacher_fingerprint:
            problem = f"The weights of the teacher '{self.teacher}' are not those that the student was made from."
            raise WeightsError(problem, "Find the weights of that time, or bootstrap anew.")


GROUPS = ("new", "tuned", "frozen")
READ_OUT = "read_out"  # the group of the new layers of a read-out, where there is one


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The teacher's blocks by what becomes of them; together they are its depth."""

    truncate: int  # leading blocks that are left behind
    tune: int  # middle blocks that are inherited and go on learning, at a lower rate
    freeze: int  # ending blocks that are inherited and stay as they are, with the final norm, head and projection


def split_depth(depth: int, *, truncate: int | None = None, tune: int | None = None, freeze: int | None = None) -> Shares:
    """Splits a depth into thirds (12 -> 4, 4, 4; 7 -> 2, 3, 2), or completes what is given; ConfigError if that is impossible."""
    given = {"truncate": truncate, "tune": tune, "freeze": freeze}
    for name, blocks in given.items():
        if blocks is not None and not 0 <= blocks <= depth:
            raise ConfigError(f"--{name} {blocks} is impossible: the teacher has {depth} blocks.", f"Use 0 to {depth}.")
    third = round(depth / 3) if depth > 1 else 0
    if truncate is None:
        left = depth - (tune or 0) - (freeze or 0)
        truncate = left if tune is not None and freeze is not None else min(third, left)
    kept = depth - truncate
    if tune is None:
        tune = kept - freeze if freeze is not None else kept - min(third, kept // 2)
    if freeze is None:
        freeze = kept - tune
    if min(truncate, tune, freeze) < 0 or truncate + tune + freeze != depth:
        asked = ", ".join(f"--{name} {blocks}" for name, blocks in given.items() if blocks is not None)
        problem = f"The shares {asked} do not add up to the teacher's {depth} blocks."
        raise ConfigError(problem, f"Give two of them, or three that sum to {depth}.")
    if truncate == depth:
        problem = f"--truncate {truncate} leaves none of the teacher's {depth} blocks."
        raise ConfigError(problem, "Keep at least one to tune or freeze.")
    return Shares(truncate=truncate, tune=tune, freeze=freeze)


def freeze_inherited(student: SparseFormer, shares: Shares) -> None:
    """Turns gradients off for what stays the teacher's: ending blocks, final norm, pooling, head, and all that a map sees."""
    student.cortex.requires_grad_(False)
    student.cortex.prefix.requires_grad_(True)
    if student.cortex.sizes is not None:
        student.cortex.sizes.requires_grad_(True)
    for index, block in enumerate(student.cortex.blocks):
        block.requires_grad_(index < shares.tune)
    if isinstance(student.focusing, MixedResolutionFront):
        student.focusing.embedding.requires_grad_(False)
        student.focusing.pre_norm.requires_grad_(False)


def parameter_groups(student: SparseFormer) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """The student's named parameters by group, see ``GROUPS`` and ``READ_OUT``; needs ``requires_grad`` to be set."""
    names = GROUPS if student.read_out is None else (*GROUPS, READ_OUT)
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {group: [] for group in names}
    as_teacher = isinstance(student.focusing, GridFront | MixedResolutionFront)
    new_parts = ("cortex.prefix.", "cortex.sizes.", "focusing.selector." if as_teacher else "focusing.")
    for name, parameter in student.named_parameters():
        if name.startswith(tuple(f"{READ_OUT}.{part}." for part in ("layers", "norm"))):
            groups[READ_OUT].append((name, parameter))
            continue
        new = name.startswith(new_parts)
        groups["new" if new else "tuned" if parameter.requires_grad else "frozen"].append((name, parameter))
    return groups


def count_parameters(student: SparseFormer) -> dict[str, int]:
    """The number of ``new``, ``tuned`` and ``frozen`` parameters."""
    return {group: sum(parameter.numel() for _, parameter in members) for group, members in parameter_groups(student).items()}
