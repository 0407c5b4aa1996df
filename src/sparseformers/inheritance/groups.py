"""Which of a student's parameters are new, which are tuned, and which stay the teacher's."""

from __future__ import annotations

from torch import nn

from sparseformers.inheritance.shares import Shares
from sparseformers.model import SparseFormer
from sparseformers.model.grid import GridFront

GROUPS = ("new", "tuned", "frozen")


def freeze_inherited(student: SparseFormer, shares: Shares) -> None:
    """Turns gradients off for all that is to stay the teacher's: the ending blocks, final norm, pooling and head."""
    student.cortex.requires_grad_(False)
    student.cortex.prefix.requires_grad_(True)
    for index, block in enumerate(student.cortex.blocks):
        block.requires_grad_(index < shares.tune)


def parameter_groups(student: SparseFormer) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """The student's named parameters by group, see ``GROUPS``; needs ``requires_grad`` to be set."""
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {group: [] for group in GROUPS}
    front_is_new = not isinstance(student.focusing, GridFront)
    for name, parameter in student.named_parameters():
        new = name.startswith("cortex.prefix.") or (front_is_new and name.startswith("focusing."))
        groups["new" if new else "tuned" if parameter.requires_grad else "frozen"].append((name, parameter))
    return groups


def count_parameters(student: SparseFormer) -> dict[str, int]:
    """How many parameters are ``new``, ``tuned`` and ``frozen``."""
    return {group: sum(parameter.numel() for _, parameter in members) for group, members in parameter_groups(student).items()}
