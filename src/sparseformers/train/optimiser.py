"""Parameter groups and the learning rate: new parts at the full rate, the others at a share of it (appendix A.2).

Where asked for, what is tuned learns the more slowly the earlier it stands: layer-wise decay of the rate, as in ULMFiT (Howard
and Ruder, ACL 2018) and BEiT (Bao et al., ICLR 2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from sparseformers.inheritance import parameter_groups
from sparseformers.model import SparseFormer

UNDECAYED = ("token", "tokens", "prefix", "positions", "stages", "initial_rois", "bias", "gamma")
"""Last parts of the names of parameters that weight decay would only pull towards an arbitrary zero."""


class LayerRate(NamedTuple):
    """The learning rate of some of the parameters of a group."""

    name: str
    """Of these parameters, in metrics; the group's own where all of it has one rate."""
    share: float
    """Of the group's rate, in (0, 1]."""


def build_optimiser(
    student: SparseFormer, *, lr: float, lr_ratios: Mapping[str, float], weight_decay: float, layer_decay: float = 1.0
) -> torch.optim.AdamW:
    """AdamW over what learns, each group of parameters with and without weight decay.

    Args:
        student: with ``requires_grad`` set by inheritance.
        lr: peak rate of the new parts.
        lr_ratios: rate of each group of :data:`sparseformers.inheritance.GROUPS` as a share of it, 1 for those not named.
        weight_decay: of matrices; vectors, embeddings and RoIs have none.
        layer_decay: rate of each tuned block as a share of the next one's, see :func:`layer_rate`; with 1 they are one group.
    """
    groups: list[dict[str, Any]] = []
    for group, grouped in parameter_groups(student).items():
        layers: dict[LayerRate, list[tuple[str, nn.Parameter]]] = {}
        for leaf, parameter in grouped:
            if parameter.requires_grad:
                layer = layer_rate(student, leaf, layer_decay) if group == "tuned" else LayerRate(group, 1.0)
                layers.setdefault(layer, []).append((leaf, parameter))
        for (name, share), members in layers.items():
            rate = lr * lr_ratios.get(group, 1.0) * share
            for decay in (weight_decay, 0.0):
                chosen = [parameter for leaf, parameter in members if is_decayed(leaf, parameter) == (decay > 0)]
                if chosen:
                    groups.append({"params": chosen, "name": name, "weight_decay": decay, "peak_lr": rate, "lr": 0.0})
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), fused=True)


def layer_rate(student: SparseFormer, leaf: str, layer_decay: float) -> LayerRate:
    """The rate of a tuned parameter by where it stands, counted from the last tuned block.

    Of T tuned blocks the i-th, from 0, has ``layer_decay`` ** (T - 1 - i) of the group's rate, and what an inherited front
    takes over besides its blocks (patch embedding with its positions, prefix tokens) has ``layer_decay`` ** T.

    Args:
        student: with ``requires_grad`` set by inheritance.
        leaf: name of a parameter in the group ``tuned``.
        layer_decay: in (0, 1]; 1 makes one group of all of them.
    """
    if layer_decay == 1:
        return LayerRate("tuned", 1.0)
    tuned = sum(any(parameter.requires_grad for parameter in block.parameters()) for block in student.cortex.blocks)
    _, kind, number = leaf.split(".")[:3]
    if kind != "blocks":
        return LayerRate("tuned_embedding", layer_decay**tuned)
    index = int(number)
    return LayerRate(f"tuned_block_{index}", layer_decay ** (tuned - 1 - index))


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix that weight decay should keep small."""
    return parameter.ndim > 1 and name.rpartition(".")[2] not in UNDECAYED


def rate_factor(progress: float, warm_up: float) -> float:
    """The share of the peak rate at a point of the training: a linear rise, then half a cosine down to zero.

    Args:
        progress: in [0, 1], of samples or of the clock.
        warm_up: share of the training that the rise takes, in [0, 1).
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warm_up:
        return progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's rate to its peak times ``factor``."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor
