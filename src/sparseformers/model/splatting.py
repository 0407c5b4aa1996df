"""Tokens back on the image: features on a regular grid, each cell from the tokens whose RoIs are there.

Legend: B batch, N latent tokens, D width, h x w cells. A RoI is (x1, y1, x2, y2) in [0, 1] of the image; the cell in row i and
column j spans [j / w, (j + 1) / w] x [i / h, (i + 1) / h].

The kernel. How much a token says at a point is told by its RoI alone:

- Inside the RoI, exp(-``FALL`` u²) / area, with u the distance from the centre in units of the half sides, along the axis where
  that is greater (0 at the centre, 1 on the border). The share of the area makes a small RoI count for more than a large one
  around it, because its token has read the place more closely; the fall towards the border makes the many half-image RoIs of
  the papers' fronts, which all overlap, differ, and gives every part of a RoI a gradient.
- Outside of it, what it is on the border, falling by exp(-``DECAY``) with each spacing of N tokens spread evenly over the
  image (1 / sqrt(N)). This is a distance on the image, not one in sizes of the RoI: a place that no RoI covers gets the nearest
  tokens, and not the widest ones, as it would with Gaussians. Where a RoI covers the place, such tails are all but nothing.

These are taken in logarithms and made weights by a softmax over the tokens. So the weights of a cell sum to 1 however far away
all RoIs are, none is exactly 0, and a token far away still has a gradient that pulls its RoI closer. RoIs that are the cells of
the grid give each cell its own token to 98% or more.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparseformers.rois import centre_and_size

FALL = 3.0  # by how many e-foldings a token counts for less on its RoI's border than at its centre
DECAY = 8.0  # by how many e-foldings it counts for less with each spacing of tokens away from its RoI
SMALLEST_SIDE = 0.25
"""Side of a RoI in spacings of tokens: smaller ones count as being of that size, or one of no size would take all."""


def splat(tokens: Tensor, rois: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Features on a grid, a weighted mean of the tokens in each cell; differentiable in tokens and RoIs.

    Tokens B x N x D, finite RoIs B x N x 4, which may overlap, leave parts of the image out, or reach outside of it, and rows and
    columns (h, w), or one number for both -> B x D x h x w, float32. Raises ValueError for a size below 1, or tokens and RoIs
    that do not fit each other.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    if tokens.ndim != 3 or rois.shape != (*tokens.shape[:2], 4):
        raise ValueError(f"tokens B x N x D need RoIs B x N x 4, not {tuple(tokens.shape)} and {tuple(rois.shape)}")
    with torch.autocast(tokens.device.type, enabled=False):  # the sums of many small weights want all digits
        weights = cell_weights(rois, rows, columns)
        features = tokens.float().transpose(1, 2) @ weights.flatten(2)
    return features.unflatten(-1, (rows, columns))


def cell_weights(rois: Tensor, rows: int, columns: int) -> Tensor:
    """The share of each token in each cell.

    On a grid with fewer rows or columns than the tokens would have, a cell is the mean of several points in it, so that no
    token falls between the points. RoIs B x N x 4 -> B x N x h x w, at least 0, of sum 1 over the tokens, float32; raises
    ValueError for fewer than one row or column.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"a grid needs at least one row and one column, not {rows} x {columns}")
    spacing = 1 / math.sqrt(rois.shape[-2])
    down, across = (max(1, math.ceil(1 / (spacing * cells) - 1e-9)) for cells in (rows, columns))  # points in a cell
    weights = _log_kernel(rois.float(), rows * down, columns * across, spacing).softmax(dim=1)
    return weights.unflatten(3, (columns, across)).unflatten(2, (rows, down)).mean(dim=(3, 5))


def _log_kernel(rois: Tensor, rows: int, columns: int, spacing: float) -> Tensor:
    """The logarithm of how much each token says at the middle of each cell, up to a constant: B x N x h x w."""
    centre, size = centre_and_size(rois)
    size = size.clamp_min(SMALLEST_SIDE * spacing)
    from_x = (_middles(columns, rois) - centre[..., :1]).abs().unsqueeze(-2)  # B x N x 1 x w
    from_y = (_middles(rows, rois) - centre[..., 1:]).abs().unsqueeze(-1)  # B x N x h x 1
    half_width, half_height = (size / 2)[..., None, None].unbind(dim=2)  # B x N x 1 x 1 each
    inside = torch.maximum(from_x / half_width, from_y / half_height).clamp(max=1)
    # Along the axes and not diagonally: the root of a sum of squares has no gradient where both are 0.
    outside = (from_x - half_width).clamp_min(0) + (from_y - half_height).clamp_min(0)
    return -FALL * inside.square() - size.log().sum(dim=-1)[..., None, None] - (DECAY / spacing) * outside


def _middles(cells: int, like: Tensor) -> Tensor:
    """The middles of that many equal parts of [0, 1], on the same device."""
    return (torch.arange(cells, dtype=torch.float32, device=like.device) + 0.5) / cells
