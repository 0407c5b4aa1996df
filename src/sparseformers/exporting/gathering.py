"""Bilinear sampling as gathers of whole pixels, each with all its channels.

The runtimes of exported files sample a channel at a time, and compute where to read anew for each. Here the four pixels around
a point are read as rows of memory and weighted. In PyTorch itself it would be half as fast as its own kernel.
Legend: B batch, C channels of the map, N latent tokens, P sampling points per token.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from sparseformers.model.sampling import BilinearSampling


class Neighbour(NamedTuple):
    """One of the two pixels beside a point, along one axis."""

    at: Tensor
    """Its row or column, int64, always one that the map has."""
    weight: Tensor
    """Its share of what is read, in [0, 1]."""


class GatheredSampling(BilinearSampling):
    """As :class:`BilinearSampling`, by gathers."""

    def forward(self, features: Tensor, points: Tensor) -> Tensor:
        """Map B x C x H x W, points B x N x P x 2, (x, y) in [0, 1] of the image -> B x N x P x C in the map's precision."""
        batch, _, height, width = features.shape
        pixels = features.float().permute(0, 2, 3, 1).flatten(0, 2)  # B·H·W x C
        image = torch.arange(batch, device=features.device).view(-1, 1, 1) * height  # B x 1 x 1, the first row of each
        x, y = points.float().unbind(-1)  # B x N x P each
        columns, rows = neighbours(x, width, self.outside), neighbours(y, height, self.outside)

        def weighted(row: Neighbour, column: Neighbour) -> Tensor:
            index = (image + row.at) * width + column.at
            found = pixels.index_select(0, index.flatten()).unflatten(0, index.shape)  # B x N x P x C
            return found * (row.weight * column.weight).unsqueeze(-1)

        (above, below), (left, right) = rows, columns
        upper, lower = (weighted(row, left) + weighted(row, right) for row in (above, below))
        return (upper + lower).to(features.dtype)


def neighbours(places: Tensor, size: int, outside: Literal["border", "zeros"]) -> tuple[Neighbour, Neighbour]:
    """The pixels before and after each place along an axis.

    Args:
        places: in [0, 1] of the image.
        size: pixels along the axis.
        outside: what lies outside the image, as for :class:`BilinearSampling`.
    """
    places = places * size - 0.5  # the middle of the first pixel is 0
    if outside == "border":
        places = places.clamp(0, size - 1)
    before = places.floor()
    share = places - before
    return _neighbour(before, 1 - share, size), _neighbour(before + 1, share, size)


def _neighbour(position: Tensor, weight: Tensor, size: int) -> Neighbour:
    """A pixel that the map has; one that it does not have weighs nothing."""
    inside = position.clamp(0, size - 1)
    return Neighbour(inside.long(), weight * (inside == position))


def gather_samples(network: nn.Module) -> None:
    """Has a network read its feature maps by gathers, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, BilinearSampling):
                module.add_module(name, GatheredSampling(child.outside))
