"""Which of a student's parameters are new, which are tuned, and which stay the teacher's."""

from __future__ import annotations

from torch import nn

from sparseformers.inheritance.shares import Shares
from sparseformers.model import SparseFormer
from sparseformers.model.grid import GridFront

GROUPS = ("new", "rois", "tuned", "frozen")
"""``rois`` is what moves the RoIs of an inherited front."""

OF_THE_TEACHER = ("embedding.", "pre_norm.", "prefix.", "blocks.")
"""Beginnings of the names of the parameters that an inherited front takes over."""


def freeze_inherited(student: SparseFormer, shares: Shares) -> None:
    """Turns gradients off for all that is to stay the teacher's: the ending blocks, final norm, pooling and head."""
    front = student.focusing
    student.cortex.requires_grad_(False)
    student.cortex.prefix.requires_grad_(True)
    in_front = list(front.blocks) if isinstance(front, GridFront) else []
    for index, block in enumerate([*in_front, *student.cortex.blocks]):
        block.requires_grad_(index < shares.tune)


def parameter_groups(student: SparseFormer) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """The student's named parameters by group, see ``GROUPS``; needs ``requires_grad`` to be set."""
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {group: [] for group in GROUPS}
    in_front = isinstance(student.focusing, GridFront)
    for name, parameter in student.named_parameters():
        groups[_group(name, parameter, in_front)].append((name, parameter))
    return groups


def count_parameters(student: SparseFormer) -> dict[str, int]:
    """How many parameters are ``new`` (whatever for), ``tuned`` and ``frozen``."""
    counts = {group: sum(parameter.numel() for _, parameter in members) for group, members in parameter_groups(student).items()}
    kept = {group: counts.pop(group) for group in ("tuned", "frozen")}
    return {"new": sum(counts.values())} | kept


def _group(name: str, parameter: nn.Parameter, in_front: bool) -> str:
    part, _, rest = name.partition(".")
    in_cortex = part == "cortex" and not rest.startswith("prefix.")
    if in_cortex or (in_front and rest.startswith(OF_THE_TEACHER)):
        return "tuned" if parameter.requires_grad else "frozen"
    return "rois" if in_front and rest.startswith("steps.") else "new"
