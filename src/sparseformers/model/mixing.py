"""Adaptive mixing: a token writes its own two matrices, and they decode what it sampled."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.model.start import quiet_layer_norm


class AdaptiveMixing(nn.Module):
    """Mixes the P sampled features of a token over channels, then over points, and adds them to the token.

    Spec: Gao et al., ICLR 2024, section 3 (after AdaMixer); the bootstrapped network has no activation between the two
    products and no biases in them.

    Args:
        width: of the tokens.
        channels: C of a sampled feature.
        points: P sampled features per token.
        hidden: bottleneck of the generator.
    """

    def __init__(self, width: int, channels: int, points: int, hidden: int) -> None:
        super().__init__()
        self.channels, self.points, self.points_out = channels, points, max(points, 32)
        self.generator = nn.Sequential(
            quiet_layer_norm(width),
            nn.Linear(width, hidden),
            nn.Linear(hidden, channels * channels + points * self.points_out),
        )
        self.projection = nn.Linear(channels * self.points_out, width)

    def start(self) -> None:
        """Before training every token mixes with the same Xavier-uniform matrices, whatever its content."""
        last = cast(nn.Linear, self.generator[-1])
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            channel, spatial = last.bias.split([self.channels**2, self.points * self.points_out])
            nn.init.xavier_uniform_(channel.view(self.channels, self.channels))
            nn.init.xavier_uniform_(spatial.view(self.points_out, self.points))

    def forward(self, tokens: Tensor, sampled: Tensor) -> Tensor:
        """Tokens B x N x width and their features B x N x P x C -> tokens B x N x width."""
        matrices = self.generator(tokens)
        channel, spatial = matrices.split([self.channels**2, self.points * self.points_out], dim=-1)
        channel = channel.unflatten(-1, (self.channels, self.channels))  # B x N x C x C
        spatial = spatial.unflatten(-1, (self.points_out, self.points))  # B x N x P_out x P
        mixed = F.gelu(spatial @ (sampled.to(tokens.dtype) @ channel))  # B x N x P_out x C
        return tokens + self.projection(mixed.flatten(-2))
