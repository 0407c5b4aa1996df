"""Feature sampling: the stem's feature map, the points at which tokens read it, and the RoI position that they add."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.config import FocusingConfig
from sparseformers.model.layers import QuietLayerNorm
from sparseformers.model.mixing import AdaptiveMixing

ENCODINGS = {"appendix": roi_arithmetic.position_encoding, "released": roi_arithmetic.released_position_encoding}
"""The continuous sinusoidal encodings of RoIs by name; see :mod:`sparseformers.rois`."""


class Stem(nn.Module):
    """The "early convolution": one to C channels, a max-pool, and a normalisation of every position over its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, channels, kernel_size=7, stride=2, padding=3)

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x H x W normalised images, any size -> B x C x H/4 x W/4 features."""
        # With a position's channels side by side in memory, pooling takes eight at a time: a tenth of the time or less on a CPU.
        features = self.convolution(images.contiguous(memory_format=torch.channels_last))
        # The greatest of rectified values is the rectified greatest one, of which there are a quarter as many.
        features = F.relu(F.max_pool2d(features, kernel_size=3, stride=2, padding=1))
        channels_last = features.permute(0, 2, 3, 1)
        return F.layer_norm(channels_last, channels_last.shape[-1:], eps=1e-5).permute(0, 3, 1, 2)


class SamplingPoints(nn.Module):
    """P points per token: learnt offsets plus offsets from the token's content, standardised and set into its RoI."""

    def __init__(self, width: int, points: int, *, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.points = points
        self.bias = nn.Parameter(torch.empty(points * 2))
        self.offsets = nn.Sequential(QuietLayerNorm(width, eps=norm_eps), nn.Linear(width, points * 2, bias=False))

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
    """Reads a feature map at points; ``outside`` of the image its border goes on, or there is nothing (zeros)."""

    def __init__(self, outside: Literal["border", "zeros"] = "border") -> None:
        super().__init__()
        self.outside = outside

    def forward(self, features: Tensor, points: Tensor) -> Tensor:
        """Map B x C x H x W, points B x N x P x 2, (x, y) in [0, 1] of the image -> B x N x P x C in the map's precision."""
        # Interpolated in float32, as the points are: bfloat16 has not enough digits for a position on the map.
        grid = 2 * points.float() - 1
        sampled = F.grid_sample(features.float(), grid, mode="bilinear", padding_mode=self.outside, align_corners=False)
        return sampled.permute(0, 2, 3, 1).to(features.dtype)


class RoIPosition(nn.Module):
    """token += Linear(LayerNorm(PE(RoI))), after every sampling (appendix A.2); ``width`` is a multiple of 8."""

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


class SampledTokens(NamedTuple):
    """Tokens after the image was sampled once."""

    tokens: Tensor  # B x N x width, after mixing and position injection
    points: Tensor  # B x N x P x 2, where the features were read, (x, y) in [0, 1] of the image


class FeatureSampling(nn.Module):
    """Sampling points, bilinear sampling, adaptive mixing, then the RoI position (appendix A.2)."""

    def __init__(self, width: int, config: FocusingConfig) -> None:
        super().__init__()
        self.sampling_points = SamplingPoints(width, config.points)
        self.read = BilinearSampling()
        self.mixing = AdaptiveMixing(width, config.channels, config.points, config.mixing_hidden)
        self.position = RoIPosition(width, config.position_encoding)

    def start(self) -> None:
        """Starting values of its parts; linear layers have theirs already."""
        self.sampling_points.start()
        self.mixing.generator.start()

    def forward(self, features: Tensor, tokens: Tensor, rois: Tensor) -> SampledTokens:
        """Feature map B x C x H x W, tokens B x N x width and RoIs B x N x 4 -> tokens that have seen the image."""
        points = self.sampling_points(tokens, rois)  # B x N x P x 2
        sampled = self.read(features, points)  # B x N x P x C
        tokens = self.mixing(tokens, sampled)  # B x N x width
        return SampledTokens(self.position(tokens, rois), points)
