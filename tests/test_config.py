import dataclasses
import json
from typing import Any

import pytest

from sparseformers.config import (
    BlockConfig,
    CortexConfig,
    FocusingConfig,
    GridConfig,
    OriginalFocusingConfig,
    PreprocessingConfig,
    SparseFormerConfig,
)
from sparseformers.errors import ConfigError
from sparseformers.named import NAMED_CONFIGS, named_config
from sparseformers.settings import from_dict, to_dict

BLOCK = BlockConfig(width=64, heads=2, feed_forward_width=128)


def failure(build: Any, **values: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build(**values)
    return caught.value


def test_named_configs_survive_json() -> None:
    for config in NAMED_CONFIGS.values():
        assert from_dict(SparseFormerConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_named_sizes_are_those_of_the_papers() -> None:
    for name, tokens, focusing_width, width, depth, embedding_width in (
        ("sf_base_augreg", 48, 384, 768, 8, 768),
        ("sf_large_augreg", 48, 512, 1024, 16, 1024),
        ("sf_base_clip", 48, 384, 768, 8, 512),
        ("sf_large_clip", 63, 512, 1024, 16, 768),
        ("sf_v1_tiny", 49, 256, 512, 7, 512),
        ("sf_v1_small", 64, 320, 640, 7, 640),
        ("sf_v1_base", 81, 384, 768, 9, 768),
    ):
        focusing, cortex = named_config(name).focusing, named_config(name).cortex
        assert (focusing.tokens, focusing.width, focusing.iterations) == (tokens, focusing_width, 4)
        assert (cortex.block.width, cortex.depth, cortex.embedding_width) == (width, depth, embedding_width)
        if "v1" in name:
            assert focusing == OriginalFocusingConfig(tokens=tokens, width=focusing_width, channels=96, points=36, heads=64)
            assert cortex.block.heads == 64
            assert (cortex.prefix_tokens, cortex.pooling, cortex.pool_first) == (0, "average", True)
        else:
            assert focusing == FocusingConfig(tokens=tokens, width=focusing_width, channels=64, points=16)


def test_unknown_name_suggests_near_ones_and_lists_all() -> None:
    error = failure(named_config, name="sf_base_augrep")
    assert error.problem == "There is no model of the name 'sf_base_augrep'."
    assert error.remedy.startswith("Did you mean 'sf_base_augreg'")
    assert all(name in error.remedy for name in NAMED_CONFIGS)


def test_saved_configs__of_before_there_were_two_fronts_and_with_wrong_names() -> None:
    values = to_dict(named_config("sf_base_clip"))
    assert values["focusing"].pop("kind") == "focusing"
    assert from_dict(SparseFormerConfig, values) == named_config("sf_base_clip")
    values["focusing"]["token"] = values["focusing"].pop("tokens")
    error = failure(from_dict, kind=SparseFormerConfig, values=values)
    assert "unknown key 'focusing.token'. Did you mean 'tokens'?" in error.problem
    values["focusing"]["kind"] = "orignal"
    error = failure(from_dict, kind=SparseFormerConfig, values=values)
    assert "key 'focusing.kind': 'orignal' is none of 'focusing', 'original'" in error.problem


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BLOCK.width = 128  # type: ignore[misc]


def test_values_out_of_range() -> None:
    block, cortex = {"width": 64, "heads": 2, "feed_forward_width": 128}, {"block": BLOCK, "depth": 2}
    for kind, given, values, problem in (
        (FocusingConfig, {}, {"tokens": 0}, "Focusing: tokens must be at least 1, not 0. Use 1 or more."),
        (FocusingConfig, {}, {"width": 100}, "must be a multiple of 64, not 100. Use 128"),
        (FocusingConfig, {}, {"width": 0}, "must be a multiple of 64, not 0. Use 64"),
        (FocusingConfig, {}, {"points": 1}, "points must be at least 2, not 1"),
        (OriginalFocusingConfig, {}, {"width": 100}, "focusing width of 100 cannot be split over 64 attention heads"),
        (OriginalFocusingConfig, {}, {"mixing_reduction": 257}, "cannot divide a width of 256 by 257. Use 4"),
        (OriginalFocusingConfig, {}, {"stochastic_depth": 1.0}, "must be in [0, 1), not 1.0. Use 0.1"),
        (GridConfig, {}, {"tokens": 0}, "Grid: tokens must be at least 1"),
        (BlockConfig, block, {"heads": 3}, "A width of 64 cannot be split over 3 attention heads."),
        (BlockConfig, block, {"heads": 0}, "heads must be at least 1"),
        (CortexConfig, cortex, {"depth": -1}, "depth must be at least 0, not -1"),
        (CortexConfig, cortex, {"prefix_tokens": -1}, "prefix tokens must be at least 0"),
        (CortexConfig, cortex, {"prefix_tokens": 0}, "needs a class token, but there are no prefix tokens. Set prefix_tokens"),
        (CortexConfig, cortex, {"attention_pool_heads": 3}, "a width of 64 cannot be split over 3 attention heads"),
        (CortexConfig, cortex, {"projection": 0}, "projection must be at least 1"),
        (CortexConfig, cortex, {"stochastic_depth": -0.1}, "stochastic depth must be in [0, 1), not -0.1"),
        (CortexConfig, cortex, {"pool_first": True, "final_norm": False}, "Pooling first needs a final norm"),
        (CortexConfig, cortex, {"pool_first": True, "pooled_norm": True}, "Pooling first needs a final norm"),
        (PreprocessingConfig, {}, {"size": (0, 224)}, "Preprocessing: size must be at least 1, not 0"),
        (PreprocessingConfig, {}, {"crop": 0.0}, "crop must be in (0, 1], not 0.0"),
        (PreprocessingConfig, {}, {"crop": 1.5}, "crop must be in (0, 1], not 1.5"),
        (PreprocessingConfig, {}, {"crop": float("nan")}, "crop must be in (0, 1], not nan"),
        (PreprocessingConfig, {}, {"std": (0.2, 0.0, 0.2)}, "std must be above 0, not 0.0"),
    ):
        assert problem in str(failure(kind, **{**given, **values})), values


def test_the_cortex_must_suit_the_front() -> None:
    for width, focusing, problem in (
        (60, FocusingConfig(), "The cortex width must be a multiple of 8 for the position encoding, not 60."),
        (96, OriginalFocusingConfig(), "A cortex width of 96 cannot be split over 64 attention heads."),
    ):
        cortex = CortexConfig(block=BlockConfig(width=width, heads=2, feed_forward_width=128), depth=1)
        assert failure(SparseFormerConfig, cortex=cortex, focusing=focusing).problem == problem
