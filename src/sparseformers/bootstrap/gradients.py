"""Gradients of a step before anything is done to them: how large they are, and whether a step may be made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def group_norms(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The norm of the gradient of each group of parameters by the group's name: float32 scalars on the device.

    Groups that share a name, such as those with and without weight decay, are one. Parts on several processes are added up.

    Args:
        optimiser: after the backward pass, gradients unscaled.
    """
    named: dict[str, list[nn.Parameter]] = {}
    for group in optimiser.param_groups:
        named.setdefault(group["name"], []).extend(group["params"])
    return {name: _norm(parameters) for name, parameters in named.items()}


def total_norm(norms: Mapping[str, Tensor]) -> Tensor:
    """The norm of all groups together."""
    return torch.linalg.vector_norm(torch.stack(list(norms.values())))


def _norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros((), device=parameters[0].device)
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
