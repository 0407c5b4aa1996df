"""Small SparseFormers of every kind that there is, for the tests of their hosts."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
import torch

from sparseformers.config import MixedResolutionConfig, PreprocessingConfig, RelativeConfig, RotaryConfig, SparseFormerConfig
from sparseformers.model import SparseFormer
from sparseformers.model.positions import RotaryPositions
from tests.model.small import grid_config, original_config, scattered, small_config

CELLS: dict[str, Any] = {"patch_size": 4, "block": {"layer_scale": True}, "depth": 3, "prefix_tokens": 2}
POST_NORM: dict[str, Any] = {"post_norm": True, "norm": "rms", "attention_norm": True, "feed_forward_norm": True}
PREPROCESSING = PreprocessingConfig(
    size=(48, 56), crop=0.9, interpolation="bilinear", resize="squash", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
)


KINDS: Mapping[str, Callable[[], SparseFormerConfig]] = {
    "augreg": lambda: small_config(depth=3, classes=5),
    "clip": lambda: small_config(depth=3, projection=24, block={"activation": "quick_gelu", "norm_eps": 1e-5}),
    "siglip": lambda: small_config(depth=3, pooling="attention", prefix_tokens=0),
    "average": lambda: small_config(depth=3, pooling="average", pooled_norm=True, final_norm=False, classes=5),
    "clip_classifier": lambda: small_config(depth=3, projection=24, classes=5),
    "v1": lambda: original_config(cortex={"depth": 3}),
    "cells": lambda: grid_config(tokens=6, **CELLS),
    "mixed": lambda: dataclasses.replace(
        grid_config(tokens=6, **CELLS), focusing=MixedResolutionConfig(tokens=10, levels=2, patch_size=4, channels=8)
    ),
    "uneven": lambda: grid_config(tokens=7, pre_norm=True, **CELLS),
    "rotary": lambda: grid_config(tokens=6, positions=RotaryConfig(blocks=3, heads=2), **CELLS),
    "relative": lambda: grid_config(tokens=6, positions=RelativeConfig(grid=(2, 3), blocks=3), **{**CELLS, "block": POST_NORM}),
}
"""By what they stand for."""

every_kind = pytest.mark.parametrize("kind", KINDS)  # runs a test with each of them


def student_of(kind: str, *, trained: bool = True) -> SparseFormer:
    """A small SparseFormer in evaluation mode, as after some training (or as before it), with odd preprocessing."""
    config = dataclasses.replace(KINDS[kind](), preprocessing=PREPROCESSING)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = SparseFormer(config).eval()
        if isinstance(student.cortex.positions, RotaryPositions):
            student.cortex.positions.frequencies.normal_()
        return cast(SparseFormer, scattered(student)) if trained else student
