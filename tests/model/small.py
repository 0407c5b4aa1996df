"""Small networks for the tests."""

from typing import Any, Literal

import torch
from torch import nn

from sparseformers.config import BlockConfig, CortexConfig, FocusingConfig, GridConfig, OriginalFocusingConfig, SparseFormerConfig
from sparseformers.model import SparseFormer

Pooling = Literal["token", "average", "attention"]
BLOCK = {"width": 32, "heads": 2, "feed_forward_width": 48}


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
            block=BlockConfig(**BLOCK | (block or {})),
            pooling=pooling,
            attention_pool_heads=2 if pooling == "attention" else 1,
            **{"depth": 2, **cortex},
        ),
    )


def grid_config(
    *, tokens: int = 4, patch_size: int = 8, pre_norm: bool = False, block: dict[str, Any] | None = None, **cortex: Any
) -> SparseFormerConfig:
    """One with a grid front, which has the prefix tokens, too."""
    return SparseFormerConfig(
        focusing=GridConfig(tokens=tokens, patch_size=patch_size, pre_norm=pre_norm),
        cortex=CortexConfig(block=BlockConfig(**BLOCK | (block or {})), prefix_from_front=True, **{"depth": 1, **cortex}),
    )


def original_config(
    *, block: dict[str, Any] | None = None, cortex: dict[str, Any] | None = None, **focusing: Any
) -> SparseFormerConfig:
    """v1: no prefix tokens, and pooled before the norm."""
    sizes = {"tokens": 6, "width": 16, "iterations": 2, "channels": 8, "points": 4, "heads": 4}
    pooling = {"prefix_tokens": 0, "pooling": "average", "pool_first": True}
    return SparseFormerConfig(
        focusing=OriginalFocusingConfig(**sizes | focusing),
        cortex=CortexConfig(block=BlockConfig(**BLOCK | (block or {})), **pooling | {"depth": 2, "classes": 5} | (cortex or {})),
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


def original_model(*, stochastic_depth: float = 0.0, **focusing: Any) -> SparseFormer:
    """A small v1 as after some training."""
    drop = {"stochastic_depth": stochastic_depth}
    model = SparseFormer(original_config(cortex=drop, **drop, **focusing)).eval()
    scattered(model)
    return model
