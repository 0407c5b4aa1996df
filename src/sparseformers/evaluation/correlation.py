"""Spearman's rank correlation: whether two maps put the same places first, whatever their scales."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's correlation of two maps: the linear correlation of their ranks, equal values sharing the mean of theirs.

    Args:
        first: any shape, at least one value.
        second: the same shape.

    Returns:
        In [-1, 1]: 1 where both order all places alike. Not a number where one of them is the same everywhere, or holds
        what is not finite: there is no order to compare.

    Raises:
        ValueError: for different shapes, or no values.
    """
    if first.shape != second.shape or not first.numel():
        raise ValueError(f"a correlation is of two maps of one shape, not {tuple(first.shape)} and {tuple(second.shape)}")
    if not (first.isfinite().all() and second.isfinite().all()):
        return math.nan
    one, other = (ranks(values.flatten()) for values in (first, second))
    one, other = one - one.mean(), other - other.mean()
    spread = one.norm() * other.norm()
    return (one @ other / spread).clamp(-1, 1).item() if spread > 0 else math.nan


def ranks(values: Tensor) -> Tensor:
    """The places of M values in ascending order, from 1; equal values share the mean of their places: M -> M, float64."""
    _, group, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()  # the last place in each group of equal values
    return (last - (counts - 1) / 2)[group]
