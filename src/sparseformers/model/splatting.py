"""Tokens back on the image: features on a regular grid, each cell from the tokens whose RoIs are there.

Legend: B batch, N latent tokens, D width, h x w cells. A RoI is (x1, y1, x2, y2) in [0, 1] of the image; the cell in row i and
column j spans [j / w, (j + 1) / w] x [i / h, (i + 1) / h].

The kernel. How much a token says at a point is told by its RoI alone:

- Near its RoI, a tent: 1 at the centre, falling along each axis to 0 at a distance of one RoI side, over the root of the RoI's
  area. Between RoIs that are the cells of a grid this is bilinear interpolation, and their border goes on outside of the outer
  middles; where RoIs lie over each other, a small one counts for more, because its token has read the place more closely.
- Elsewhere, ``LEAST`` of that, falling by exp(-``DECAY``) with each spacing of N tokens spread evenly over the image
  (1 / sqrt(N)). This is a distance on the image, not one in sizes of the RoI: a place that no RoI is near gets the nearest
  tokens, and not the widest ones. Where a RoI is near, such tails are all but nothing.

These are taken in logarithms and made weights by a softmax over the tokens. So the weights of a cell sum to 1 however far away
all RoIs are, none is exactly 0, and a token far away still has a gradient that pulls its RoI closer.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor

from sparseformers.rois import centre_and_size

LEAST = 1e-3  # share of its weight at the centre that a token keeps on the border of its RoI, where no tent reaches
DECAY = 8.0  # by how many e-foldings that falls with each spacing of tokens away from the RoI
SMALLEST_SIDE = 0.25
"""Side of a RoI in spacings of tokens: smaller ones count as being of that size, or one of no size would take all."""


def splat(tokens: Tensor, rois: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Features on a grid, a weighted mean of the tokens in each cell; differentiable in tokens and RoIs.

    Tokens B x N x D, finite RoIs B x N x 4 (or 1 x N x 4), anywhere, and rows and columns (h, w), or one number for both ->
    B x D x h x w, float32. Raises ValueError for a size below 1, or tokens and RoIs that do not fit each other.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    if tokens.ndim != 3 or rois.shape[1:] != (tokens.shape[1], 4) or rois.shape[0] not in (1, tokens.shape[0]):
        raise ValueError(f"tokens B x N x D need RoIs B x N x 4, not {tuple(tokens.shape)} and {tuple(rois.shape)}")
    # The sums of many small weights want all digits. The meta device, on which costs are counted, knows no autocast.
    with nullcontext() if tokens.is_meta else torch.autocast(tokens.device.type, enabled=False):
        weights = cell_weights(rois, rows, columns)
        features = tokens.float().transpose(1, 2) @ weights.flatten(2)
    return features.unflatten(-1, (rows, columns))


def cell_weights(rois: Tensor, rows: int, columns: int) -> Tensor:
    """The share of each token in each cell.

    On a grid with far fewer rows or columns than the tokens would have, a cell is the mean of several points in it, so that no
    token falls between the points. RoIs B x N x 4 -> B x N x h x w, at least 0, of sum 1 over the tokens, float32; raises
    ValueError for fewer than one row or column.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"a grid needs at least one row and one column, not {rows} x {columns}")
    spacing = 1 / math.sqrt(rois.shape[-2])
    down, across = (max(1, math.ceil(1 / (spacing * cells) - 0.5)) for cells in (rows, columns))  # points in a cell
    weights = _log_kernel(rois.float(), rows * down, columns * across, spacing).softmax(dim=1)
    return weights.unflatten(3, (columns, across)).unflatten(2, (rows, down)).mean(dim=(3, 5))


def _log_kernel(rois: Tensor, rows: int, columns: int, spacing: float) -> Tensor:
    """The logarithm of how much each token says at the middle of each cell, up to a constant: B x N x h x w."""
    centre, size = centre_and_size(rois)
    size = size.clamp_min(SMALLEST_SIDE * spacing)
    from_x = (_middles(columns, rois) - centre[..., :1]).abs().unsqueeze(-2)  # B x N x 1 x w
    from_y = (_middles(rows, rois) - centre[..., 1:]).abs().unsqueeze(-1)  # B x N x h x 1
    width, height = size[..., None, None].unbind(dim=2)  # B x N x 1 x 1 each
    tent = (1 - from_x / width).clamp_min(0) * (1 - from_y / height).clamp_min(0)
    # Along the axes and not diagonally: the root of a sum of squares has no gradient where both are 0.
    outside = (from_x - width / 2).clamp_min(0) + (from_y - height / 2).clamp_min(0)
    near, far = tent.clamp_min(1e-30).log(), math.log(LEAST) - (DECAY / spacing) * outside
    return torch.maximum(near, far) - 0.5 * size.log().sum(dim=-1)[..., None, None]


def _middles(cells: int, like: Tensor) -> Tensor:
    """The middles of that many equal parts of [0, 1], on the same device."""
    return (torch.arange(cells, dtype=torch.float32, device=like.device) + 0.5) / cells
