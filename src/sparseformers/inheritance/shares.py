"""The split of a teacher's depth, and the parameters of a student that are new, tuned or frozen by it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sparseformers.errors import ConfigError
from sparseformers.model import SparseFormer
from sparseformers.model.grid import GridFront
from sparseformers.model.mixed_resolution import MixedResolutionFront

GROUPS = ("new", "tuned", "frozen")
READ_OUT = "read_out"
"""The group of the new layers of a read-out, where there is one."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The teacher's blocks by what becomes of them; together they are its depth."""

    truncate: int
    """Leading blocks that are left behind."""
    tune: int
    """Middle blocks that are inherited and go on learning, at a lower rate."""
    freeze: int
    """Ending blocks that are inherited and stay as they are, with the final norm, head and projection."""


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


def freeze_inherited(student: SparseFormer, shares: Shares) -> None:
    """Turns gradients off for all that is to stay the teacher's: the ending blocks, final norm, pooling and head."""
    student.cortex.requires_grad_(False)
    student.cortex.prefix.requires_grad_(True)
    for index, block in enumerate(student.cortex.blocks):
        block.requires_grad_(index < shares.tune)


def parameter_groups(student: SparseFormer) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """The student's named parameters by group, see ``GROUPS`` and ``READ_OUT``; needs ``requires_grad`` to be set."""
    names = GROUPS if student.read_out is None else (*GROUPS, READ_OUT)
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {group: [] for group in names}
    as_teacher = isinstance(student.focusing, GridFront | MixedResolutionFront)
    new_parts = ("cortex.prefix.", "focusing.selector." if as_teacher else "focusing.")
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
