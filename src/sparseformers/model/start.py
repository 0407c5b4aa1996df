"""Starting values of the new parts (those of the authors' code)."""

from __future__ import annotations

import math

from torch import nn


class QuietLayerNorm(nn.LayerNorm):
    """A LayerNorm at the head of a branch that should say little at first: its weight starts at width^-0.5."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.constant_(self.weight, 1 / math.sqrt(self.normalized_shape[0]))


def quiet_layer_norm(width: int, *, eps: float = 1e-5) -> nn.LayerNorm:
    """The LayerNorm at the head of the mixing generator, the sampling offsets and the RoI adjustment."""
    return QuietLayerNorm(width, eps=eps)


def start_linear(module: nn.Module) -> None:
    """Truncated normal weights of 0.02 and zero biases, for every linear layer; other modules keep their own start."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
