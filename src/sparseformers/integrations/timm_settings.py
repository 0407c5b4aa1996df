"""A configuration in timm's words: what it notes of a network and of the images that it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sparseformers.config import CortexConfig, GridConfig, SparseFormerConfig
from sparseformers.errors import ConfigError
from sparseformers.model.sparseformer import SMALLEST_SIDE

POOLINGS: Mapping[str, Literal["token", "average", "attention"]] = {"token": "token", "avg": "average", "map": "attention"}
"""Poolings by timm's names."""


def head_name(cortex: CortexConfig) -> Literal["classifier", "projection"]:
    """The part of the cortex that is timm's head: the classifier, or the projection of a CLIP, which has none."""
    return "projection" if cortex.projection is not None and cortex.classes is None else "classifier"


def timm_settings(config: SparseFormerConfig) -> dict[str, Any]:
    """What timm calls a ``pretrained_cfg``: how images are made ready, and the names of the first and last layer."""
    images, cortex = config.preprocessing, config.cortex
    return {
        "input_size": (3, *images.size),
        "min_input_size": (3, SMALLEST_SIDE, SMALLEST_SIDE),
        "fixed_input_size": False,
        "interpolation": images.interpolation,
        "crop_pct": images.crop,
        "crop_mode": "squash" if images.resize == "squash" else "center",
        "mean": images.mean,
        "std": images.std,
        "num_classes": (cortex.projection if head_name(cortex) == "projection" else cortex.classes) or 0,
        "pool_size": None,
        "first_conv": "focusing.embedding" if _is_inherited(config) else "focusing.stem.convolution",
        "classifier": f"cortex.{head_name(cortex)}",
    }


def token_grid(config: SparseFormerConfig) -> tuple[int, int] | None:
    """Rows and columns where each latent token stands for a cell of a grid and stays there; None where tokens look freely."""
    focusing = config.focusing
    on_grid = isinstance(focusing, GridConfig) and math.prod(focusing.grid) == focusing.tokens
    return focusing.grid if on_grid else None


def reduction(config: SparseFormerConfig) -> int:
    """The side in pixels of each token's share of an image of the configured size, were the image dealt out evenly."""
    return round(math.sqrt(math.prod(config.preprocessing.size) / config.focusing.tokens))


def chosen_blocks(blocks: int, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
    """Blocks as timm's own networks let them be chosen: all of them, the last so many, or those of these indices.

    Args:
        blocks: how many there are.
        indices: None, a number, or indices, which may count from the end.

    Returns:
        Their indices, counted from the first one, and the largest.

    Raises:
        ConfigError: for none, or one that is not there.
    """
    if indices is None or isinstance(indices, int):
        count = blocks if indices is None else indices
        wanted = list(range(blocks - count, blocks))
    else:
        wanted = [index + blocks if index < 0 else index for index in indices]
    if not wanted or not all(0 <= index < blocks for index in wanted):
        raise ConfigError(
            f"There are {blocks} blocks to give intermediates of, so that {indices} is out of range.",
            f"Ask for the last 1 to {blocks}, or for indices from 0 to {blocks - 1}.",
        )
    return wanted, max(wanted)


def _is_inherited(config: SparseFormerConfig) -> bool:
    return isinstance(config.focusing, GridConfig)
