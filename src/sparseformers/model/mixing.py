"""Adaptive mixing: a token generates its own two matrices, and they decode the features that it sampled."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.model.layers import QuietLayerNorm


class MixingMatrices(NamedTuple):
    """The two matrices that each token mixes its features with."""

    channel: Tensor  # ... x C x C, from the right.
    spatial: Tensor  # ... x P_out x P, from the left.


class MixingGenerator(nn.Sequential):
    """From a token to the numbers of its mixing matrices: the channel matrix first, then the spatial one."""

    def __init__(self, width: int, channels: int, points: int, hidden: int) -> None:
        points_out = max(points, 32)
        super().__init__(
            QuietLayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, channels * channels + points * points_out)
        )
        self.channels, self.points, self.points_out = channels, points, points_out

    def start(self) -> None:
        """Before training every token mixes with the same Xavier-uniform matrices, whatever its content."""
        last = cast(nn.Linear, self[-1])
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            for matrix in self._cut(last.bias):
                nn.init.xavier_uniform_(matrix)

    def matrices(self, tokens: Tensor) -> MixingMatrices:
        """Tokens ... x width -> their matrices."""
        return self._cut(self(tokens))

    def _cut(self, numbers: Tensor) -> MixingMatrices:
        channel, spatial = numbers.split([self.channels**2, self.points * self.points_out], dim=-1)
        return MixingMatrices(
            channel.unflatten(-1, (self.channels, self.channels)), spatial.unflatten(-1, (self.points_out, self.points))
        )


class AdaptiveMixing(nn.Module):
    """Mixes the P sampled features of a token over channels, then over points, and adds them to the token.

    Spec: Gao et al., ICLR 2024, section 3 (after AdaMixer); the bootstrapped network has no activation between the two
    products and no biases in them. ``hidden`` is the bottleneck of the generator.
    """

    def __init__(self, width: int, channels: int, points: int, hidden: int) -> None:
        super().__init__()
        self.generator = MixingGenerator(width, channels, points, hidden)
        self.projection = nn.Linear(channels * self.generator.points_out, width)

    def forward(self, tokens: Tensor, sampled: Tensor) -> Tensor:
        """Tokens B x N x width and their features B x N x P x C -> tokens B x N x width."""
        return tokens + self.decode(self.generator.matrices(tokens), sampled.to(tokens.dtype))

    def decode(self, matrices: MixingMatrices, sampled: Tensor) -> Tensor:
        """Matrices and the features B x N x P x C that they mix -> what is added to the tokens, B x N x width."""
        mixed = F.gelu(matrices.spatial @ (sampled @ matrices.channel))  # B x N x P_out x C
        return self.projection(mixed.flatten(-2))


class OriginalMixing(AdaptiveMixing):
    """The mixing of v1: a learnt bias after each product, and a GELU after the first one too (Gao et al., ICLR 2024)."""

    def __init__(self, width: int, channels: int, points: int, hidden: int) -> None:
        super().__init__(width, channels, points, hidden)
        self.channel_bias = nn.Parameter(torch.zeros(channels))
        self.spatial_bias = nn.Parameter(torch.zeros(self.generator.points_out))

    def decode(self, matrices: MixingMatrices, sampled: Tensor) -> Tensor:
        mixed = F.gelu(sampled @ matrices.channel + self.channel_bias)  # B x N x P x C
        mixed = F.gelu(matrices.spatial @ mixed + self.spatial_bias.unsqueeze(-1))  # B x N x P_out x C
        return self.projection(mixed.flatten(-2))
