"""Small students with each of the fronts, as after some training."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch

from sparseformers.config import (
    BlockConfig,
    CortexConfig,
    GridConfig,
    OriginalFocusingConfig,
    PreprocessingConfig,
    SparseFormerConfig,
)
from sparseformers.model import SparseFormer
from tests.model.small import scattered, small_config

SIDE = 48
"""Pixels a side of what they are made for."""


def inherited_config(*, depth: int = 1) -> SparseFormerConfig:
    return SparseFormerConfig(
        focusing=GridConfig(tokens=4, patch_size=8),
        cortex=CortexConfig(
            block=BlockConfig(width=32, heads=2, feed_forward_width=48), depth=depth, prefix_tokens=1, prefix_from_front=True
        ),
    )


def original_config() -> SparseFormerConfig:
    return SparseFormerConfig(
        focusing=OriginalFocusingConfig(tokens=5, width=64, iterations=2, channels=8, points=9, heads=4),
        cortex=CortexConfig(
            block=BlockConfig(width=32, heads=4, feed_forward_width=48),
            depth=1,
            prefix_tokens=0,
            pooling="average",
            pool_first=True,
        ),
    )


FRONTS = {
    "grid": inherited_config(),
    "focusing": small_config(tokens=4),
    "original": original_config(),
}
"""A configuration for each kind of front."""


def student_of(config: SparseFormerConfig, **preprocessing: object) -> SparseFormer:
    """A student with noise on all weights."""
    torch.manual_seed(0)
    wanted = replace(PreprocessingConfig(size=(SIDE, SIDE)), **preprocessing)  # type: ignore[arg-type]
    return cast(SparseFormer, scattered(SparseFormer(replace(config, preprocessing=wanted)).eval()))
