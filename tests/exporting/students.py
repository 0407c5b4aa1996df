"""Small students with each of the fronts, as after some training."""

from dataclasses import replace
from typing import cast

import torch

from sparseformers.config import MixedResolutionConfig, PreprocessingConfig, SparseFormerConfig
from sparseformers.model import SparseFormer
from tests.model.small import grid_config, original_config, scattered, small_config

SIDE = 48  # pixels a side of what they are made for

FRONTS = {
    "grid": grid_config(),
    "mixed": replace(grid_config(), focusing=MixedResolutionConfig(tokens=10, levels=2, patch_size=8, channels=8)),
    "focusing": small_config(tokens=4),
    "original": original_config(tokens=5, width=64, points=9, cortex={"depth": 1, "classes": None}),
}
"""A configuration for each kind of front."""


def student_of(config: SparseFormerConfig, **preprocessing: object) -> SparseFormer:
    """A student with noise on all weights."""
    torch.manual_seed(0)
    wanted = replace(PreprocessingConfig(size=(SIDE, SIDE)), **preprocessing)  # type: ignore[arg-type]
    return cast(SparseFormer, scattered(SparseFormer(replace(config, preprocessing=wanted)).eval()))
