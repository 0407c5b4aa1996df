"""Factors of layers that can be part of the layer before them."""

from __future__ import annotations

from torch import Tensor, nn

from sparseformers.model.block import LayerScale, TransformerBlock


def fold_layer_scales(network: nn.Module) -> None:
    """Puts the factors of a block's branches into the last linear layer of each, in place."""
    for block in network.modules():
        if isinstance(block, TransformerBlock) and isinstance(block.ls1, LayerScale) and isinstance(block.ls2, LayerScale):
            _scale(block.attn.proj, block.ls1.gamma.detach())
            _scale(block.mlp.fc2, block.ls2.gamma.detach())
            block.ls1, block.ls2 = nn.Identity(), nn.Identity()


def _scale(linear: nn.Linear, factors: Tensor) -> None:
    """Multiplies what a linear layer gives by one factor per channel."""
    linear.weight.data = linear.weight.data * factors.unsqueeze(1)
    if linear.bias is not None:
        linear.bias.data = linear.bias.data * factors
