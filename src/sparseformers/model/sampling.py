"""Feature sampling: where a token looks, and what it sees there."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.config import FocusingConfig
from sparseformers.model.mixing import AdaptiveMixing
from sparseformers.model.position import RoIPosition
from sparseformers.model.start import quiet_layer_norm


class SamplingPoints(nn.Module):
    """P points per token: learnt offsets plus offsets from the token's content, standardised and set into its RoI.

    Args:
        width: of the tokens.
        points: P.
        norm_eps: epsilon of its LayerNorm.
    """

    def __init__(self, width: int, points: int, *, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.points = points
        self.bias = nn.Parameter(torch.empty(points * 2))
        self.offsets = nn.Sequential(quiet_layer_norm(width, eps=norm_eps), nn.Linear(width, points * 2, bias=False))

    def start(self) -> None:
        """A regular grid over the RoI (uniform random points if P is no square), the same for every token."""
        nn.init.zeros_(cast(nn.Linear, self.offsets[-1]).weight)
        side = math.isqrt(self.points)
        with torch.no_grad():
            if side * side == self.points:
                steps = (torch.arange(side) + 0.5) / side - 0.5
                self.bias.copy_(torch.cartesian_prod(steps, steps).flip(-1).flatten())
            else:
                self.bias.uniform_(-0.5, 0.5)

    def forward(self, tokens: Tensor, rois: Tensor) -> Tensor:
        """Tokens B x N x width and RoIs B x N x 4 -> points B x N x P x 2, (x, y) in [0, 1] of the image, float32."""
        offsets = (self.bias + self.offsets(tokens)).unflatten(-1, (self.points, 2))
        return roi_arithmetic.sampling_points(rois, offsets)


class BilinearSampling(nn.Module):
    """Reads a feature map at points.

    Args:
        outside: what lies outside the image: its border goes on, or there is nothing.
    """

    def __init__(self, outside: Literal["border", "zeros"] = "border") -> None:
        super().__init__()
        self.outside = outside

    def forward(self, features: Tensor, points: Tensor) -> Tensor:
        """Map B x C x H x W, points B x N x P x 2, (x, y) in [0, 1] of the image -> B x N x P x C in the map's precision."""
        # Interpolated in float32, as the points are: bfloat16 has not enough digits for a position on the map.
        grid = 2 * points.float() - 1
        sampled = F.grid_sample(features.float(), grid, mode="bilinear", padding_mode=self.outside, align_corners=False)
        return sampled.permute(0, 2, 3, 1).to(features.dtype)


class Glimpse(NamedTuple):
    """What one look at the image gives."""

    tokens: Tensor
    """B x N x width, after mixing and position injection."""
    points: Tensor
    """B x N x P x 2, where the features were read, (x, y) in [0, 1] of the image."""


class FeatureSampling(nn.Module):
    """One look at the image: sampling points, bilinear sampling, adaptive mixing, then the RoI position (appendix A.2).

    Args:
        width: of the tokens.
        config: sizes of the focusing transformer.
    """

    def __init__(self, width: int, config: FocusingConfig) -> None:
        super().__init__()
        self.sampling_points = SamplingPoints(width, config.points)
        self.read = BilinearSampling()
        self.mixing = AdaptiveMixing(width, config.channels, config.points, config.mixing_hidden)
        self.position = RoIPosition(width, config.position_encoding)

    def start(self) -> None:
        """Starting values of its parts; linear layers have theirs already."""
        self.sampling_points.start()
        self.mixing.start()

    def forward(self, features: Tensor, tokens: Tensor, rois: Tensor) -> Glimpse:
        """Feature map B x C x H x W, tokens B x N x width, RoIs B x N x 4 -> a glimpse."""
        points = self.sampling_points(tokens, rois)
        tokens = self.mixing(tokens, self.read(features, points))
        return Glimpse(tokens=self.position(tokens, rois), points=points)
