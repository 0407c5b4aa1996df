"""The names of weights in the authors' files and ours, for both of their networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

Value = TypeVar("Value")
Variant = Literal["bootstrapped", "original"]
Head = Literal["classifier", "projection"]

FIRST_BLOCK = 3
"""The authors' layer that is the cortex's first block; before it come the focusing layer, the widening and the last sampling."""

SHARED: Mapping[str, str] = {
    "initial_roi.weight": "focusing.initial_rois",
    "initial_embedding.weight": "focusing.token",
    "feat_extractor.conv1": "focusing.stem.convolution",
    "layers.0": "focusing.layer.block",
    "layers.0.roi_adjust_module": "focusing.layer.adjustment.delta",
    "norm": "cortex.norm",
}
"""Names, or their beginnings, that both networks have; the longest that fits counts."""

SAMPLING: Mapping[str, str] = {
    "roi_offset_bias": "sampling_points.bias",
    "roi_offset_module": "sampling_points.offsets",
    "adaptive_mixing.parameter_generator": "mixing.generator",
    "adaptive_mixing.out_proj": "mixing.projection",
}
"""Parts of a layer that samples, in both networks; each has two more."""

BOOTSTRAPPED_SAMPLING = {**SAMPLING, "pe_transition.0": "position.norm", "pe_transition.1": "position.projection"}
ORIGINAL_SAMPLING = {**SAMPLING, "adaptive_mixing.m_beta": "mixing.channel_bias", "adaptive_mixing.s_beta": "mixing.spatial_bias"}

BOOTSTRAPPED: Mapping[str, str] = {
    **SHARED,
    **{f"layers.0.{theirs}": f"focusing.layer.sampling.{ours}" for theirs, ours in BOOTSTRAPPED_SAMPLING.items()},
    **{f"layers.2.{theirs}": f"focusing.last_sampling.{ours}" for theirs, ours in BOOTSTRAPPED_SAMPLING.items()},
    "layers.0.stage_embedding.weight": "focusing.stages",
    "layers.1.0": "focusing.widen",
    "cls_embedding.weight": "cortex.prefix.tokens",
}
"""All names of the bootstrapped network but those of the cortex's blocks and head."""

ORIGINAL: Mapping[str, str] = {
    **SHARED,
    **{f"layers.0.{theirs}": f"focusing.layer.sampling.{ours}" for theirs, ours in ORIGINAL_SAMPLING.items()},
    **{f"layers.2.{theirs}": f"focusing.last_layer.sampling.{ours}" for theirs, ours in ORIGINAL_SAMPLING.items()},
    "layers.1": "focusing.widen",
    "layers.2": "focusing.last_layer.block",
    "layers.2.roi_adjust_module": "focusing.last_layer.adjustment.delta",
}
"""All names of v1 but those of the cortex's blocks and head."""


def name_table(variant: Variant, *, depth: int, head: Head) -> dict[str, str]:
    """Maps the authors' names, or beginnings of names, to ours for a cortex of ``depth`` blocks; each of ours comes once."""
    table = dict(ORIGINAL if variant == "original" else BOOTSTRAPPED)
    table["proj"] = f"cortex.{head}"
    return table | {f"layers.{FIRST_BLOCK + block}": f"cortex.blocks.{block}" for block in range(depth)}


def rename(state: Mapping[str, Value], table: Mapping[str, str]) -> dict[str, Value]:
    """Replaces the longest beginning of each name by what the table says; raises KeyError for a name that it does not know."""

    def renamed(name: str) -> str:
        parts = name.split(".")
        for length in range(len(parts), 0, -1):
            beginning = ".".join(parts[:length])
            if beginning in table:
                return ".".join([table[beginning], *parts[length:]])
        raise KeyError(name)

    return {renamed(name): value for name, value in state.items()}


def reverse(table: Mapping[str, str]) -> dict[str, str]:
    """Turns a table from their names to ours round."""
    return {ours: theirs for theirs, ours in table.items()}
