"""Parameter groups and the learning rate: new parts at the full rate, the others at a share of it (appendix A.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import AdamW, Optimizer

from sparseformers.inheritance import parameter_groups
from sparseformers.model import SparseFormer

UNDECAYED = ("token", "tokens", "prefix", "positions", "stages", "initial_rois", "bias", "gamma", "falls")
"""Last parts of the names of parameters that weight decay would only pull towards an arbitrary zero."""


def build_optimiser(student: SparseFormer, *, lr: float, lr_ratios: Mapping[str, float], weight_decay: float) -> AdamW:
    """AdamW over what learns, each group of parameters with and without weight decay.

    ``lr`` is the peak rate of the new parts, and ``lr_ratios`` that of each of :data:`sparseformers.inheritance.GROUPS` as a
    share of it, 1 for those not named. ``weight_decay`` is of matrices; vectors, embeddings and RoIs have none.
    """
    groups: list[dict[str, Any]] = []
    for group, grouped in parameter_groups(student).items():
        for decay in (weight_decay, 0.0):
            # A parameter that decays is a matrix that should be kept small.
            decays = {leaf: each.ndim > 1 and leaf.rpartition(".")[2] not in UNDECAYED for leaf, each in grouped}
            chosen = [each for leaf, each in grouped if each.requires_grad and decays[leaf] == (decay > 0)]
            if chosen:
                rate = lr * lr_ratios.get(group, 1.0)
                groups.append({"params": chosen, "name": group, "weight_decay": decay, "peak_lr": rate, "lr": 0.0})
    return AdamW(groups, betas=(0.9, 0.999), fused=True)


def rate_factor(progress: float, warm_up: float) -> float:
    """Share of the peak rate at ``progress`` in [0, 1]: a linear rise over ``warm_up`` in [0, 1), then half a cosine to zero."""
    progress = min(max(progress, 0.0), 1.0)
    return progress / warm_up if progress < warm_up else 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def set_rates(optimiser: Optimizer, factor: float) -> None:
    """Sets every group's rate to its peak times ``factor``."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor
