"""Positions: what tells a token where it looks."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic

ENCODINGS = {
    "appendix": roi_arithmetic.position_encoding,
    "released": roi_arithmetic.released_position_encoding,
}
"""The continuous sinusoidal encodings of RoIs by name; see :mod:`sparseformers.rois`."""


class RoIPosition(nn.Module):
    """token += Linear(LayerNorm(PE(RoI))), after every sampling (appendix A.2).

    Args:
        width: of the tokens and of the encoding, a multiple of 8.
        encoding: a name in ``ENCODINGS``.
    """

    def __init__(self, width: int, encoding: Literal["appendix", "released"]) -> None:
        super().__init__()
        self.width = width
        self.encode = ENCODINGS[encoding]
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.projection = nn.Linear(width, width)

    def forward(self, tokens: Tensor, rois: Tensor) -> Tensor:
        """Tokens B x N x width, RoIs B x N x 4 -> tokens B x N x width."""
        encoding = self.encode(rois, self.width).to(tokens.dtype)
        return tokens + self.projection(self.norm(encoding))


def read_map(position_map: Tensor, rois: Tensor) -> Tensor:
    """A map of positions at the centres of RoIs, bilinear between its entries; outside of it its border goes on.

    Args:
        position_map: D x rows x columns over the image.
        rois: B x N x 4.

    Returns:
        B x N x D, float32.
    """
    centre, _ = roi_arithmetic.centre_and_size(rois)
    at = (2 * centre - 1).unsqueeze(2)  # B x N x 1 x 2
    maps = position_map.float().expand(rois.shape[0], -1, -1, -1)
    read = F.grid_sample(maps, at, mode="bilinear", padding_mode="border", align_corners=False)  # B x D x N x 1
    return read.squeeze(-1).transpose(1, 2)


class BlockPositions(nn.Module):
    """Tells every token before a block where it looks, from a learnt map; zero at first.

    A plain vision transformer says it once, in front of all blocks. To say it again before each of them costs nothing, and
    lets a network made for a fine grid of patches get used to a coarse one in a few hundred steps.

    Args:
        grid: rows and columns of the map.
        prefix_tokens: R; each has a vector of its own.
        width: D.
    """

    def __init__(self, grid: tuple[int, int], prefix_tokens: int, width: int) -> None:
        super().__init__()
        self.prefix = nn.Parameter(torch.zeros(prefix_tokens, width))
        self.positions = nn.Parameter(torch.zeros(width, *grid))

    def forward(self, tokens: Tensor, rois: Tensor) -> Tensor:
        """Tokens B x (R+N) x D and the RoIs B x N x 4 of the last N -> tokens B x (R+N) x D."""
        latent = read_map(self.positions, rois)
        added = torch.cat([self.prefix.expand(latent.shape[0], -1, -1).to(latent.dtype), latent], dim=1)
        return tokens + added.to(tokens.dtype)


class NoPositions(nn.Module):
    """In the place of :class:`BlockPositions`, for networks that hear of positions in front only."""

    def forward(self, tokens: Tensor, rois: Tensor | None) -> Tensor:
        """Tokens as they are."""
        return tokens


def block_positions(grid: tuple[int, int] | None, prefix_tokens: int, width: int) -> nn.Module:
    """The module for one block: with a map of this many rows and columns, or without any."""
    return NoPositions() if grid is None else BlockPositions(grid, prefix_tokens, width)
