"""The form of the authors' files: the names of weights there and here, and the configuration that names and shapes tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from torch import Tensor

from sparseformers.config import BlockConfig, FocusingConfig, OriginalFocusingConfig, SparseFormerConfig
from sparseformers.errors import ConfigError, WeightsError, shorten
from sparseformers.named import bootstrapped_config, original_config

Value = TypeVar("Value")
Variant = Literal["bootstrapped", "original"]
Head = Literal["classifier", "projection"]
OfficialActivation = Literal["gelu", "quick_gelu"]
FIRST_BLOCK = 3  # their layer that is the cortex's first block; before it come focusing layer, widening and last sampling
SHARED: Mapping[str, str] = {  # names, or their beginnings, that both networks have; the longest that fits counts
    "initial_roi.weight": "focusing.initial_rois",
    "initial_embedding.weight": "focusing.token",
    "feat_extractor.conv1": "focusing.stem.convolution",
    "layers.0": "focusing.layer.block",
    "layers.0.roi_adjust_module": "focusing.layer.adjustment.delta",
    "norm": "cortex.norm",
}
SAMPLING: Mapping[str, str] = {  # parts of a layer that samples, in both networks; each has two more
    "roi_offset_bias": "sampling_points.bias",
    "roi_offset_module": "sampling_points.offsets",
    "adaptive_mixing.parameter_generator": "mixing.generator",
    "adaptive_mixing.out_proj": "mixing.projection",
}
BOOTSTRAPPED_SAMPLING = {**SAMPLING, "pe_transition.0": "position.norm", "pe_transition.1": "position.projection"}
ORIGINAL_SAMPLING = {**SAMPLING, "adaptive_mixing.m_beta": "mixing.channel_bias", "adaptive_mixing.s_beta": "mixing.spatial_bias"}
BOOTSTRAPPED: Mapping[str, str] = {  # all names of the bootstrapped network but those of the cortex's blocks and head
    **SHARED,
    **{f"layers.0.{theirs}": f"focusing.layer.sampling.{ours}" for theirs, ours in BOOTSTRAPPED_SAMPLING.items()},
    **{f"layers.2.{theirs}": f"focusing.last_sampling.{ours}" for theirs, ours in BOOTSTRAPPED_SAMPLING.items()},
    "layers.0.stage_embedding.weight": "focusing.stages",
    "layers.1.0": "focusing.widen",
    "cls_embedding.weight": "cortex.prefix.tokens",
}
ORIGINAL: Mapping[str, str] = {  # all names of v1 but those of the cortex's blocks and head
    **SHARED,
    **{f"layers.0.{theirs}": f"focusing.layer.sampling.{ours}" for theirs, ours in ORIGINAL_SAMPLING.items()},
    **{f"layers.2.{theirs}": f"focusing.last_layer.sampling.{ours}" for theirs, ours in ORIGINAL_SAMPLING.items()},
    "layers.1": "focusing.widen",
    "layers.2": "focusing.last_layer.block",
    "layers.2.roi_adjust_module": "focusing.last_layer.adjustment.delta",
}


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


MARKS: Mapping[Variant, tuple[str, ...]] = {  # weights that only one of the two networks has
    "bootstrapped": ("cls_embedding.weight", "layers.0.stage_embedding.weight", "layers.0.pe_transition.1.weight"),
    "original": ("layers.0.adaptive_mixing.m_beta", "layers.0.adaptive_mixing.s_beta", "layers.2.adaptive_mixing.m_beta"),
}
TITLES: Mapping[Variant, str] = {"bootstrapped": "bootstrapped SparseFormer", "original": "original SparseFormer (v1)"}


def variant_of(state: Mapping[str, Tensor]) -> Variant:
    """Tells which of the authors' networks a state dict belongs to; raises WeightsError if to neither, or in parts to both."""
    found: dict[Variant, list[str]] = {variant: [name for name in names if name in state] for variant, names in MARKS.items()}
    fitting = [variant for variant, names in found.items() if names]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        named = shorten(name for names in found.values() for name in names)
        problem = f"The weights have parts of both of the authors' networks ({named})."
        raise WeightsError(problem, "Give a file as it was released.")
    missing = "; ".join(f"the {TITLES[variant]} has {shorten(names)}" for variant, names in MARKS.items())
    problem = f"The weights are not those of one of the authors' networks: missing are the weights that tell ({missing})."
    raise WeightsError(problem, "Give one of their 'converted' files; a model that sparseformers saved needs no converting.")


def is_official(state: Mapping[str, Tensor]) -> bool:
    """Tells whether a state dict has weights that only the authors' networks have."""
    return any(name in state for names in MARKS.values() for name in names)


def variant_of_config(config: SparseFormerConfig) -> Variant:
    """Tells which of the authors' networks a configuration is of."""
    return "original" if isinstance(config.focusing, OriginalFocusingConfig) else "bootstrapped"


def head_of(state: Mapping[str, Tensor]) -> Head:
    """Tells what the authors' ``proj`` is: a classifier has a bias, CLIP's projection has none."""
    return "classifier" if "proj.bias" in state else "projection"


def config_from_state(state: Mapping[str, Tensor], activation: OfficialActivation = "gelu") -> SparseFormerConfig:
    """Reads the configuration of one of the authors' networks off the names and shapes of its weights.

    No shape tells the activation of the cortex: ``quick_gelu`` for OpenAI's CLIP. Raises WeightsError if the weights are of
    neither network, one that tells a size is missing, or the activation is one that the network does not have.
    """
    variant = variant_of(state)
    _check_activation(variant, head_of(state), activation)
    try:
        return _original(state) if variant == "original" else _bootstrapped(state, head_of(state), activation)
    except ConfigError as error:
        problem = f"The shapes of the weights make no {TITLES[variant]}: {error.problem}"
        raise WeightsError(problem, "Give a file as it was released.") from None


def _check_activation(variant: Variant, head: Head, activation: OfficialActivation) -> None:
    if variant == "original" and head == "projection":
        raise WeightsError("The weights do not fit (missing: proj.bias).", "Give a file as it was released; v1 has a classifier.")
    if head == "classifier" and activation == "quick_gelu":
        kind = "v1" if variant == "original" else "a model bootstrapped from AugReg"
        problem = f"The activation 'quick_gelu' is that of OpenAI's CLIP, but these are the weights of {kind}, with a classifier."
        raise WeightsError(problem, "Use the activation 'gelu' (the default).")
    if head == "projection" and activation == "gelu":
        problem = "The weights end in a projection without a bias, as those of OpenAI's CLIP do, whose activation is quick_gelu."
        raise WeightsError(problem, "Ask for quick_gelu (--activation quick_gelu); if this is no CLIP, its proj.bias is missing.")


def _shape(state: Mapping[str, Tensor], name: str, *, dimensions: int = 2) -> tuple[int, ...]:
    if name not in state:
        raise WeightsError(f"The weights do not fit (missing: {name}).", "Check that the file is whole.")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or min(shape) < 1:
        problem = f"The weights do not fit (other shape: {name} {list(shape)}, not {dimensions} dimensions)."
        raise WeightsError(problem, "Check that the file is whole.")
    return shape


def _depth(state: Mapping[str, Tensor]) -> int:
    """The number of the cortex's blocks; a gap in their numbers is found when names are compared."""
    layers = {name.split(".")[1] for name in state if name.startswith("layers.")}
    return sum(layer.isdecimal() and int(layer) >= FIRST_BLOCK for layer in layers)


def _front_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "tokens": _shape(state, "initial_roi.weight")[0],
        "width": _shape(state, "initial_embedding.weight")[1],
        "channels": _shape(state, "feat_extractor.conv1.weight", dimensions=4)[0],
        "points": _shape(state, "layers.0.roi_offset_bias", dimensions=1)[0] // 2,
    }


def _cortex_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    names = {"feed_forward_width": f"layers.{FIRST_BLOCK}.mlp.fc1.weight", "width": "layers.1.0.weight"}
    return {size: _shape(state, name)[0] for size, name in names.items()}


def _bootstrapped(state: Mapping[str, Tensor], head: Head, activation: OfficialActivation) -> SparseFormerConfig:
    focusing = FocusingConfig(
        **_front_sizes(state),
        iterations=_shape(state, "layers.0.stage_embedding.weight")[0],
        mixing_hidden=_shape(state, "layers.0.adaptive_mixing.parameter_generator.1.weight")[0],
        position_encoding="released",
    )
    # Heads have 64 channels; every LayerNorm has 1e-5, those of the blocks from AugReg's 1e-6 too.
    sizes = _cortex_sizes(state)
    block = BlockConfig(**sizes, heads=max(1, sizes["width"] // 64), activation=activation, norm_eps=1e-5)
    outputs = {"projection" if head == "projection" else "classes": _shape(state, "proj.weight")[0]}
    return bootstrapped_config(focusing, block, depth=_depth(state), **outputs)


def _original(state: Mapping[str, Tensor]) -> SparseFormerConfig:
    # No shape tells the iterations, which share their weights, nor the heads: the defaults are those of all three sizes.
    sizes, hidden = _front_sizes(state), _shape(state, "layers.0.adaptive_mixing.parameter_generator.1.weight")[0]
    focusing = OriginalFocusingConfig(mixing_reduction=sizes["width"] // hidden, **sizes)
    return original_config(focusing, **_cortex_sizes(state), depth=_depth(state), classes=_shape(state, "proj.weight")[0])
