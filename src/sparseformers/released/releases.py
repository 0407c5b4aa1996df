"""Which files the authors released, and what network each of them is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from sparseformers.config import FocusingConfig, SparseFormerConfig
from sparseformers.errors import ConfigError, suggest
from sparseformers.named import named_config
from sparseformers.released.shapes import OfficialActivation

RELEASE_URL = "https://github.com/showlab/sparseformer/releases/download/v2.0.0-refactor"
"""Where the files lie."""


class Release(NamedTuple):
    """One released file."""

    file: str
    """Its name."""
    activation: OfficialActivation
    """Of the cortex, which the file does not tell."""


RELEASES: Mapping[str, Release] = {
    "sf_v1_tiny": Release("sparseformer_v1_tiny_converted.pth", "gelu"),
    "sf_v1_small": Release("sparseformer_v1_small_converted.pth", "gelu"),
    "sf_v1_base": Release("sparseformer_v1_base_converted.pth", "gelu"),
    "sf_base_augreg": Release("sparseformer_btsp_augreg_base_converted.pth", "gelu"),
    "sf_large_augreg": Release("sparseformer_btsp_augreg_large_converted.pth", "gelu"),
    "sf_base_clip": Release("sparseformer_btsp_openai_clip_base_converted.pth", "quick_gelu"),
    "sf_large_clip": Release("sparseformer_btsp_openai_clip_large_converted.pth", "quick_gelu"),
}
"""By the names of their sizes in :data:`sparseformers.named.NAMED_CONFIGS`."""


def release(name: str) -> Release:
    """The released file of a named size.

    Raises:
        ConfigError: for a name that is none, with the nearest ones.
    """
    if name not in RELEASES:
        known = ", ".join(RELEASES)
        raise ConfigError(
            f"The authors released no model of the name '{name}'.", f"{suggest(name, RELEASES)} Known: {known}.".strip()
        )
    return RELEASES[name]


def released_config(name: str) -> SparseFormerConfig:
    """The configuration of a named size as the authors trained it.

    The bootstrapped ones have another layout of the RoI position encoding than the appendix, and an epsilon of 1e-5 in all
    LayerNorms.
    """
    config = named_config(name)
    if not isinstance(config.focusing, FocusingConfig):
        return config
    block = dataclasses.replace(config.cortex.block, norm_eps=1e-5)
    return dataclasses.replace(
        config,
        focusing=dataclasses.replace(config.focusing, position_encoding="released"),
        cortex=dataclasses.replace(config.cortex, block=block),
    )
