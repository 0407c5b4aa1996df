"""Small layers, and the starting values of the new parts (those of the authors' code)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sparseformers.config import BlockConfig


class QuietLayerNorm(nn.LayerNorm):
    """A LayerNorm at the head of a branch that should say little at first: its weight starts at width^-0.5."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.constant_(self.weight, 1 / math.sqrt(self.normalized_shape[0]))


def start_linear(module: nn.Module) -> None:
    """Truncated normal weights of 0.02 and zero biases, for every linear layer; other modules keep their own start."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build_norm(block: BlockConfig, width: int | None = None) -> nn.Module:
    """A norm of the kind that the blocks have, over their own width by default."""
    kind = nn.RMSNorm if block.norm == "rms" else nn.LayerNorm
    return kind(block.width if width is None else width, eps=block.norm_eps)


class LayerScale(nn.Module):
    """A learnt factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """... x D -> ... x D."""
        return x * self.gamma


class StochasticDepth(nn.Module):
    """Leaves out a residual branch by a chance in (0, 1) for an image in training, and makes up for it in the others.

    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
    """

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.kept = 1 - chance

    def forward(self, x: Tensor) -> Tensor:
        """B x ... -> B x ..., the same in evaluation mode."""
        if not self.training:
            return x
        mask = x.new_empty([x.shape[0]] + [1] * (x.ndim - 1)).bernoulli_(self.kept)
        return x * mask / self.kept


def stochastic_depth(chance: float) -> nn.Module:
    """The module for a chance in [0, 1): nothing at all for 0."""
    return StochasticDepth(chance) if chance else nn.Identity()
