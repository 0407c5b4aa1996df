"""Packing: weights of linear layers in the layout that oneDNN multiplies fastest with on this processor.

PyTorch's own linear layer in float32 is a product of MKL, which lays a weight out anew in each pass. With the few rows that a
SparseFormer's tokens are, that is a large part of the work. oneDNN takes weights that were laid out in blocks beforehand. It
could apply the activation to the product, too, but computes GELU so slowly that PyTorch's own, in place, is the faster one.

What else costs time beside products is memory that the kernel hands out anew in each pass, page by page: large outputs go.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.errors import ConfigError
from sparseformers.model.block import FeedForward, gelu_tanh
from sparseformers.model.sampling import Stem

Network = TypeVar("Network", bound=nn.Module)

IN_PLACE: Mapping[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] = {
    F.gelu: torch.ops.aten.gelu_,
    gelu_tanh: partial(torch.ops.aten.gelu_, approximate="tanh"),
    F.relu: torch.relu_,
}  # activations that need no memory of their own, by those that do
KEPT = 32 * 2**20  # bytes: glibc gives larger blocks back to the kernel at once, and keeps smaller ones for the next pass


class PackedLinear(nn.Module):
    """A linear layer in oneDNN, of one in float32 on a CPU."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # No buffer: a packed weight has no strides, and nothing but the product can be done with it.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """... x D_in -> ... x D_out."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class StemInParts(nn.Module):
    """A stem that takes few images at a time, so that its largest map (H/2 x W/2) stays small enough to be kept."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, images: Tensor) -> Tensor:
        """As :meth:`Stem.forward`."""
        largest = 4 * self.stem.convolution.out_channels * math.ceil(images.shape[2] / 2) * math.ceil(images.shape[3] / 2)
        parts = images.split(max(1, KEPT // (largest + 1)))
        return torch.cat([self.stem(part) for part in parts]) if len(parts) > 1 else self.stem(images)


def pack_weights(network: Network) -> Network:
    """A copy of a network for inference without a compiler, whose linear layers have packed weights.
    For few tokens or images at a time, in float32, on a CPU. The copy can neither be trained, moved, saved nor exported. Raises
    ConfigError for a network that is not in float32 on a CPU, or if PyTorch was built without oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        raise ConfigError("This PyTorch was built without oneDNN.", "Leave the weights as they are.")
    if any(weight.dtype != torch.float32 or weight.device.type != "cpu" for weight in network.parameters()):
        raise ConfigError("Only weights in float32 on a CPU can be packed.", "Call .float() and .cpu() before.")
    packed = copy.deepcopy(network).eval().requires_grad_(False)
    done: dict[nn.Module, PackedLinear] = {}
    for module in list(packed.modules()):
        if isinstance(module, FeedForward) and not module.gated:
            module.activation = IN_PLACE.get(module.activation, module.activation)
        for name, child in list(module.named_children()):
            if isinstance(child, Stem):
                module.add_module(name, StemInParts(child))
            elif isinstance(child, nn.Linear):
                module.add_module(name, done.setdefault(child, PackedLinear(child)))
    return packed
