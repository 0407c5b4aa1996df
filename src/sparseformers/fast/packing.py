"""Packing: weights of linear layers in the layout that oneDNN multiplies fastest with on this processor.

PyTorch's own linear layer in float32 is a product of MKL, which reads a weight where it lies, row by row. With the few rows
that a SparseFormer's tokens are, reading the weight is a large part of the work. oneDNN takes weights that were laid out in
blocks beforehand, adds the bias and applies the activation while the product is still in the cache.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.errors import ConfigError
from sparseformers.model.block import FeedForward, gelu_tanh

Network = TypeVar("Network", bound=nn.Module)

FUSED = {F.gelu: ("gelu", "none"), gelu_tanh: ("gelu", "tanh"), F.relu: ("relu", "")}
"""Activations that oneDNN applies to a product, by its names for them."""


class PackedLinear(nn.Module):
    """A linear layer, with an activation if there is one, in oneDNN.

    Args:
        linear: in float32 on a CPU.
        activation: its name and kind, from ``FUSED``.
    """

    def __init__(self, linear: nn.Linear, activation: tuple[str, str] = ("none", "")) -> None:
        super().__init__()
        # No buffer: a packed weight has no strides, and nothing but the product can be done with it.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = linear.bias
        self.activation, self.kind = activation

    def forward(self, x: Tensor) -> Tensor:
        """... x D_in -> ... x D_out."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, self.activation, [], self.kind)


def pack_weights(network: Network) -> Network:
    """A copy of a network for inference without a compiler, whose linear layers have packed weights.

    For few tokens or images at a time, in float32, on a CPU. The copy can neither be trained, moved, saved nor exported.

    Args:
        network: a student or a folded one; is copied and stays as it is.

    Raises:
        ConfigError: if it is not in float32 on a CPU, or PyTorch was built without oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        raise ConfigError("This PyTorch was built without oneDNN.", "Leave the weights as they are.")
    if any(weight.dtype != torch.float32 or weight.device.type != "cpu" for weight in network.parameters()):
        raise ConfigError("Only weights in float32 on a CPU can be packed.", "Call .float() and .cpu() before.")
    packed = copy.deepcopy(network).eval().requires_grad_(False)
    done: dict[nn.Module, PackedLinear] = {}
    for module in list(packed.modules()):
        if isinstance(module, FeedForward) and not module.gated and module.activation in FUSED:
            done[module.fc1] = PackedLinear(module.fc1, FUSED[module.activation])
            module.activation = _as_it_is
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                module.add_module(name, done.setdefault(child, PackedLinear(child)))
    return packed


def _as_it_is(x: Tensor) -> Tensor:
    return x
