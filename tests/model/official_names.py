"""From the names in the authors' weight files to ours, for the bootstrapped models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

WHOLE = {
    "initial_roi.weight": "focusing.initial_rois",
    "initial_embedding.weight": "focusing.token",
    "cls_embedding.weight": "cortex.prefix.tokens",
    "layers.0.stage_embedding.weight": "focusing.stages",
}
"""Names that have one counterpart."""

LAYERS = {
    "feat_extractor.conv1": "focusing.stem.convolution",
    "layers.0": "focusing.layer",
    "layers.1.0": "focusing.widen",
    "layers.2": "focusing.last_sampling",
    "norm": "cortex.norm",
}
"""Beginnings of names; from layer 3 on they are the cortex's blocks, in order."""

SAMPLING = {
    "roi_offset_bias": "sampling_points.bias",
    "roi_offset_module": "sampling_points.offsets",
    "adaptive_mixing.parameter_generator": "mixing.generator",
    "adaptive_mixing.out_proj": "mixing.projection",
    "pe_transition.0": "position.norm",
    "pe_transition.1": "position.projection",
}
"""Parts of a layer that samples."""

FIRST_BLOCK = 3
"""The authors' layer that is the cortex's first block."""


def our_state(theirs: Mapping[str, Value], *, head: str) -> dict[str, Value]:
    """The authors' state dict under our names.

    Args:
        theirs: their names, and anything.
        head: what their ``proj`` is: ``projection`` for CLIP, ``classifier`` for AugReg.
    """
    return {our_name(name, head=head): value for name, value in theirs.items()}


def our_name(theirs: str, *, head: str) -> str:
    """Our name for one of the authors' parameters."""
    if theirs in WHOLE:
        return WHOLE[theirs]
    if theirs.startswith("proj."):
        return f"cortex.{head}{theirs.removeprefix('proj')}"
    for beginning, ours in LAYERS.items():
        if theirs.startswith(f"{beginning}."):
            return f"{ours}.{_inside(ours, theirs.removeprefix(f'{beginning}.'))}"
    block = re.fullmatch(r"layers\.(\d+)\.(.+)", theirs)
    if block is None or int(block[1]) < FIRST_BLOCK:
        raise KeyError(theirs)
    return f"cortex.blocks.{int(block[1]) - FIRST_BLOCK}.{block[2]}"


def _inside(layer: str, theirs: str) -> str:
    """The name of a parameter inside one of our layers."""
    for part, ours in SAMPLING.items():
        if theirs == part or theirs.startswith(f"{part}."):
            name = f"{ours}{theirs.removeprefix(part)}"
            return f"sampling.{name}" if layer == "focusing.layer" else name
    if layer != "focusing.layer":
        return theirs
    if theirs.startswith("roi_adjust_module."):
        return f"adjustment.delta.{theirs.removeprefix('roi_adjust_module.')}"
    return f"block.{theirs}"
