"""Plain small vision transformers at the size that makes them cost what a student costs."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from sparseformers.evaluation import multiply_adds
from sparseformers.teachers import Teacher, untrained_teacher

FAMILIES = {
    "vit_tiny_patch16_224": 192,
    "vit_small_patch16_224": 384,
    "deit3_medium_patch16_224": 512,
    "vit_base_patch16_224": 768,
}
"""timm's architectures, and their widths."""
SIDES = range(64, 225, 16)
"""Pixels a side that they are tried at: no more than they were made for."""
EQUAL = 0.1
"""Share of the multiply-adds by which an equal one may differ."""
MOST = 2
"""Of them, as many are compared with."""


class SmallVit(NamedTuple):
    """A vision transformer with random weights."""

    name: str
    network: Teacher


class _Candidate(NamedTuple):
    difference: float
    architecture: str
    side: int


def small_vits(wanted: int, *, unlike_width: int | None) -> list[SmallVit]:
    """The vision transformers that come nearest to so many multiply-adds, each at its best image size.

    Args:
        wanted: multiply-adds of an image.
        unlike_width: the teacher's, whose own kind at a low resolution is compared with anyway.

    Returns:
        Those within :data:`EQUAL` of it, the nearest first and :data:`MOST` at the most; the nearest alone if there are none.
    """
    families = [name for name, width in FAMILIES.items() if width != unlike_width]
    ordered = sorted(_best_side(name, wanted) for name in families)
    chosen = [candidate for candidate in ordered if candidate.difference <= EQUAL][:MOST] or ordered[:1]
    return [
        SmallVit(f"{architecture.removesuffix('_224')} at {side} px", untrained_teacher(architecture, image_size=side))
        for _, architecture, side in chosen
    ]


def _best_side(architecture: str, wanted: int) -> _Candidate:
    """The size at which an architecture comes nearest."""
    cost: Callable[[int], int] = partial(_cost, architecture)
    place = bisect.bisect_left(SIDES, wanted, key=cost)
    near = SIDES[max(0, place - 1) : place + 1]
    return min(_Candidate(abs(cost(side) / wanted - 1), architecture, side) for side in near)


def _cost(architecture: str, side: int) -> int:
    """Multiply-adds of an image, from shapes alone."""
    with torch.device("meta"):
        return multiply_adds(untrained_teacher(architecture, image_size=side), torch.empty(1, 3, side, side))
