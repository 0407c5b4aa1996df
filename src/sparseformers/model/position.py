"""Positions: what tells a token where it looks."""

from __future__ import annotations

from typing import Literal

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
