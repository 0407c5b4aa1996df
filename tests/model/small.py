"""Small networks for the tests."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from sparseformers.config import BlockConfig, CortexConfig, FocusingConfig, SparseFormerConfig
from sparseformers.model import SparseFormer

Pooling = Literal["token", "average", "attention"]


def small_config(
    *,
    tokens: int = 6,
    points: int = 4,
    iterations: int = 2,
    block: dict[str, Any] | None = None,
    pooling: Pooling = "token",
    **cortex: Any,
) -> SparseFormerConfig:
    """A SparseFormer of two narrow cortex blocks."""
    return SparseFormerConfig(
        focusing=FocusingConfig(tokens=tokens, width=64, iterations=iterations, channels=8, points=points, mixing_hidden=16),
        cortex=CortexConfig(
            block=BlockConfig(**{"width": 32, "heads": 2, "feed_forward_width": 48, **(block or {})}),
            pooling=pooling,
            attention_pool_heads=2 if pooling == "attention" else 1,
            **{"depth": 2, **cortex},
        ),
    )


def scattered(module: nn.Module, *, scale: float = 0.05) -> nn.Module:
    """The module with noise on every parameter, so that no branch is silent as it is before training."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return module


def small_model(*, trained: bool = True, **options: Any) -> SparseFormer:
    """A small SparseFormer as after some training (or as before it)."""
    model = SparseFormer(small_config(**options)).eval()
    if trained:
        scattered(model)
    return model
