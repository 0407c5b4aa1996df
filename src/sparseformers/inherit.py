"""Inheritance: truncate the teacher's leading blocks, tune the middle ones, freeze the ending ones and its head.

Gao et al., CVPR 2024, section 3 and appendix A.1. The student is new in front (focusing transformer, class token) and the
teacher behind, so that what it gives lies in the teacher's embedding space from the first step on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from sparseformers.config import CortexConfig, FocusingConfig, SparseFormerConfig
from sparseformers.errors import ConfigError, WeightsError
from sparseformers.model import SparseFormer
from sparseformers.teachers import Teacher


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How many of the teacher's blocks go where; together they are its depth."""

    truncate: int
    """Leading blocks that are left behind."""
    tune: int
    """Middle blocks that are inherited and go on learning, at a lower rate."""
    freeze: int
    """Ending blocks that are inherited and stay as they are, with the final norm, head and projection."""


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


class BlockFate(NamedTuple):
    """Where one of the teacher's blocks went."""

    teacher_block: int
    """Index in the teacher, from 0."""
    student_block: int | None
    """Index in the student's cortex; None for one that was left behind."""
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
        where = [f"{fate}: {_span(numbers)}" for fate, numbers in fates.items()]
        counts = [f"{group} {count / 1e6:.1f}M" for group, count in self.parameters.items()]
        total = sum(self.parameters.values())
        return [
            f"Teacher's blocks {'; '.join(where)}.",
            f"Parameters: {', '.join(counts)}; {total / 1e6:.1f}M in all (the teacher has {self.teacher_parameters / 1e6:.1f}M).",
            f"Left behind: {', '.join(self.left_behind)}.",
        ]


def _span(numbers: Sequence[str]) -> str:
    return "none" if not numbers else numbers[0] if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


class Inheritance(NamedTuple):
    """A student with what is known of its making."""

    student: SparseFormer
    """Frozen parts have ``requires_grad`` off."""
    report: InheritReport
    """What was inherited and what is new."""
    provenance: Provenance
    """What is saved with its weights."""


def inherit(
    teacher: Teacher,
    *,
    tokens: int | None = None,
    truncate: int | None = None,
    tune: int | None = None,
    freeze: int | None = None,
    focusing_width: int | None = None,
    channels: int = 64,
    points: int = 16,
    iterations: int = 4,
    seed: int = 0,
) -> Inheritance:
    """Makes a student of a teacher.

    Args:
        teacher: from :func:`sparseformers.load_teacher`.
        tokens: latent tokens N, without class token and registers; by default so many that, with the class token, they
            are a quarter of the teacher's patch tokens, rounded to a full grid.
        truncate: leading blocks to leave behind; a third by default.
        tune: blocks after them to go on learning.
        freeze: ending blocks to keep as they are; what is not given follows from the teacher's depth.
        focusing_width: F; by default half the teacher's width, rounded up to a multiple of 64.
        channels: C of the stem.
        points: P sampling points per token.
        iterations: of the focusing transformer.
        seed: of the starting values of the new parts.

    Raises:
        ConfigError: if the shares do not add up to the teacher's depth, or a size is impossible.
        WeightsError: if the teacher lacks a weight that it should have.
    """
    shares = split_depth(teacher.depth, truncate=truncate, tune=tune, freeze=freeze)
    width = teacher.anatomy.block.width
    config = SparseFormerConfig(
        focusing=FocusingConfig(
            tokens=default_tokens(teacher) if tokens is None else tokens,
            width=math.ceil(width / 2 / 64) * 64 if focusing_width is None else focusing_width,
            channels=channels,
            points=points,
            iterations=iterations,
        ),
        cortex=_truncated(teacher.anatomy, shares),
        preprocessing=teacher.preprocessing,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = SparseFormer(config)
    student.cortex.load_state_dict(_truncated_state(teacher, shares))
    freeze_inherited(student, shares)
    provenance = Provenance(
        teacher=teacher.identity.name,
        teacher_fingerprint=teacher.fingerprint(),
        shares=shares,
        image_size=teacher.preprocessing.size,
        crop=teacher.preprocessing.crop,
    )
    return Inheritance(student, _report(teacher, student, shares), provenance)


def split_depth(depth: int, *, truncate: int | None = None, tune: int | None = None, freeze: int | None = None) -> Shares:
    """Splits a depth into thirds (12 -> 4, 4, 4; 7 -> 2, 3, 2), or completes what is given.

    Raises:
        ConfigError: if the numbers are negative or do not add up to the depth.
    """
    given = {"truncate": truncate, "tune": tune, "freeze": freeze}
    for name, blocks in given.items():
        if blocks is not None and not 0 <= blocks <= depth:
            raise ConfigError(f"--{name} {blocks} is impossible: the teacher has {depth} blocks.", f"Use 0 to {depth}.")
    third = round(depth / 3) if depth > 1 else 0
    if truncate is None:
        truncate = (
            depth - tune - freeze if tune is not None and freeze is not None else min(third, depth - (tune or 0) - (freeze or 0))
        )
    kept = depth - truncate
    if tune is None:
        tune = kept - freeze if freeze is not None else kept - min(third, kept // 2)
    if freeze is None:
        freeze = kept - tune
    if min(truncate, tune, freeze) < 0 or truncate + tune + freeze != depth:
        asked = ", ".join(f"--{name} {blocks}" for name, blocks in given.items() if blocks is not None)
        raise ConfigError(
            f"The shares {asked} do not add up to the teacher's {depth} blocks.",
            f"Give two of them, or three that sum to {depth}.",
        )
    if truncate == depth:
        raise ConfigError(
            f"--truncate {truncate} leaves none of the teacher's {depth} blocks.", "Keep at least one to tune or freeze."
        )
    return Shares(truncate=truncate, tune=tune, freeze=freeze)


def default_tokens(teacher: Teacher) -> int:
    """Latent tokens that make, with the class token, a quarter of the teacher's patch tokens (196 -> 7 x 7 - 1 = 48)."""
    side = max(2, round(math.sqrt(teacher.patch_tokens / 4)))
    return side * side - min(1, teacher.anatomy.prefix_tokens)


def freeze_inherited(student: SparseFormer, shares: Shares) -> None:
    """Turns gradients off for all that is to stay the teacher's: the ending blocks, final norm, pooling and head."""
    student.cortex.requires_grad_(False)
    student.cortex.prefix.requires_grad_(True)
    for block in list(student.cortex.blocks)[: shares.tune]:
        block.requires_grad_(True)


def parameter_groups(student: SparseFormer) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """The student's named parameters as ``new``, ``tuned`` and ``frozen``; needs ``requires_grad`` to be set."""
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {"new": [], "tuned": [], "frozen": []}
    for name, parameter in student.named_parameters():
        inherited = name.startswith("cortex.") and not name.startswith("cortex.prefix.")
        group = "new" if not inherited else "tuned" if parameter.requires_grad else "frozen"
        groups[group].append((name, parameter))
    return groups


def count_parameters(student: SparseFormer) -> dict[str, int]:
    """How many parameters are ``new``, ``tuned`` and ``frozen``."""
    return {group: sum(parameter.numel() for _, parameter in members) for group, members in parameter_groups(student).items()}


def _truncated(anatomy: CortexConfig, shares: Shares) -> CortexConfig:
    return dataclasses.replace(anatomy, depth=anatomy.depth - shares.truncate)


def _truncated_state(teacher: Teacher, shares: Shares) -> dict[str, torch.Tensor]:
    """The teacher's cortex without its leading blocks, the others counted from 0 again."""
    kept = {}
    for name, value in teacher.cortex_state().items():
        room, _, rest = name.partition(".")
        if room != "blocks":
            kept[name] = value
            continue
        index, _, leaf = rest.partition(".")
        if int(index) >= shares.truncate:
            kept[f"blocks.{int(index) - shares.truncate}.{leaf}"] = value
    return kept


def _report(teacher: Teacher, student: SparseFormer, shares: Shares) -> InheritReport:
    fates = ["truncated"] * shares.truncate + ["tuned"] * shares.tune + ["frozen"] * shares.freeze
    blocks = tuple(
        BlockFate(index, None if fate == "truncated" else index - shares.truncate, fate) for index, fate in enumerate(fates)
    )
    left = ["the patch embedding", "the position embeddings"]
    if shares.truncate:
        left.append(f"blocks {_span([str(index) for index in range(shares.truncate)])}")
    return InheritReport(
        parameters=count_parameters(student),
        teacher_parameters=sum(parameter.numel() for parameter in teacher.parameters()),
        blocks=blocks,
        left_behind=tuple(left),
    )
