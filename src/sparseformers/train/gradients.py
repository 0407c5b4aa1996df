"""Gradients of a step: how large they are, which tells whether a step may be made from them, and how they are clipped."""

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
    """The norm of all groups together; 0 of none."""
    return torch.linalg.vector_norm(torch.stack(list(norms.values()))) if norms else torch.zeros(())


def fetched(loss: Tensor, norms: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """A loss and norms in the host's memory, by one copy: a device that computes ahead is waited for once and not for each."""
    values = torch.stack([loss, *norms.values()]).cpu()
    return values[0], dict(zip(norms, values[1:].unbind(), strict=True))


def clip(optimiser: torch.optim.Optimizer, norms: Mapping[str, Tensor], largest: float) -> Tensor:
    """Clips the gradients to a norm, and returns what it was before.

    Args:
        optimiser: after the backward pass, gradients unscaled.
        norms: of :func:`group_norms`, finite and in the host's memory: no gradient is read once more to measure it.
        largest: norm that they may have.
    """
    norm = total_norm(norms)
    share = (largest / (norm + 1e-6)).item()  # to the bit what torch.nn.utils.clip_grad_norm_ multiplies by
    if share < 1:
        gradients = [each.grad for group in optimiser.param_groups for each in group["params"] if each.grad is not None]
        torch._foreach_mul_(gradients, share)
    return norm


def _norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros((), device=parameters[0].device)
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
