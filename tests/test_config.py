from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from sparseformers.config import (
    BlockConfig,
    CortexConfig,
    FocusingConfig,
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


@pytest.mark.parametrize("name", NAMED_CONFIGS)
def test_named_configs_survive_json(name: str) -> None:
    config = named_config(name)
    assert from_dict(SparseFormerConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("name", "tokens", "focusing_width", "width", "depth", "embedding_width"),
    [
        ("sf_base_augreg", 48, 384, 768, 8, 768),
        ("sf_large_augreg", 48, 512, 1024, 16, 1024),
        ("sf_base_clip", 48, 384, 768, 8, 512),
        ("sf_large_clip", 63, 512, 1024, 16, 768),
    ],
)
def test_named_sizes_are_those_of_the_paper(
    name: str, tokens: int, focusing_width: int, width: int, depth: int, embedding_width: int
) -> None:
    config = named_config(name)
    assert (config.focusing.tokens, config.focusing.width) == (tokens, focusing_width)
    assert (config.cortex.block.width, config.cortex.depth, config.cortex.embedding_width) == (width, depth, embedding_width)
    assert (config.focusing.channels, config.focusing.points, config.focusing.iterations) == (64, 16, 4)


def test_unknown_name_suggests_near_ones_and_lists_all() -> None:
    error = failure(named_config, name="sf_base_augrep")
    assert error.problem == "There is no model of the name 'sf_base_augrep'."
    assert error.remedy.startswith("Did you mean 'sf_base_augreg'")
    assert all(name in error.remedy for name in NAMED_CONFIGS)


def test_misspelt_key_in_a_saved_config() -> None:
    values = to_dict(named_config("sf_base_clip"))
    values["focusing"]["token"] = values["focusing"].pop("tokens")
    error = failure(from_dict, kind=SparseFormerConfig, values=values)
    assert "unknown key 'focusing.token'. Did you mean 'tokens'?" in error.problem


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BLOCK.width = 128  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "problem", "remedy"),
    [
        ({"tokens": 0}, "at least one latent token, not 0", "--tokens 48"),
        ({"width": 100}, "must be a multiple of 64, not 100", "Use 128"),
        ({"width": 0}, "must be a multiple of 64, not 0", "Use 64"),
        ({"iterations": 0}, "at least one iteration", "Use 4"),
        ({"channels": 0}, "at least one channel", "Use 64"),
        ({"mixing_hidden": 0}, "needs a hidden width", "Use 128"),
        ({"points": 1}, "at least 2 sampling points", "Use 16"),
    ],
)
def test_focusing_out_of_range(values: dict[str, int], problem: str, remedy: str) -> None:
    error = failure(FocusingConfig, **values)
    assert problem in error.problem
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"heads": 3}, "A width of 64 cannot be split over 3 attention heads."),
        ({"heads": 0}, "width and heads must be at least 1"),
        ({"feed_forward_width": 0}, "feed-forward width must be at least 1"),
    ],
)
def test_block_out_of_range(values: dict[str, int], problem: str) -> None:
    assert problem in failure(BlockConfig, **{"width": 64, "heads": 2, "feed_forward_width": 128, **values}).problem


@pytest.mark.parametrize(
    ("values", "problem", "remedy"),
    [
        ({"depth": -1}, "cannot have -1 blocks", "at least one block"),
        ({"prefix_tokens": -1}, "cannot be negative", "Use 1"),
        ({"prefix_tokens": 0}, "needs a class token", "pool by 'average'"),
        ({"attention_pool_heads": 3}, "A width of 64 cannot be split over 3 heads of attention pooling", "divides"),
        ({"projection": 0}, "at least one channel", "None"),
        ({"classes": 0}, "at least one class", "None"),
    ],
)
def test_cortex_out_of_range(values: dict[str, int], problem: str, remedy: str) -> None:
    error = failure(CortexConfig, **{"block": BLOCK, "depth": 2, **values})
    assert problem in error.problem
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"size": (0, 224)}, "An image size of (0, 224) is not possible."),
        ({"crop": 0.0}, "share in (0, 1], not 0.0"),
        ({"crop": 1.5}, "share in (0, 1], not 1.5"),
        ({"crop": float("nan")}, "share in (0, 1], not nan"),
        ({"std": (0.2, 0.0, 0.2)}, "cannot be divided by a std of (0.2, 0.0, 0.2)"),
    ],
)
def test_preprocessing_out_of_range(values: dict[str, Any], problem: str) -> None:
    assert problem in failure(PreprocessingConfig, **values).problem


def test_cortex_width_must_suit_the_position_encoding() -> None:
    cortex = CortexConfig(block=BlockConfig(width=60, heads=2, feed_forward_width=128), depth=1)
    error = failure(SparseFormerConfig, cortex=cortex, focusing=FocusingConfig())
    assert error.problem == "The cortex width must be a multiple of 8 for the position encoding, not 60."


@pytest.mark.parametrize(
    ("name", "tokens", "focusing_width", "width", "depth"),
    [("sf_v1_tiny", 49, 256, 512, 7), ("sf_v1_small", 64, 320, 640, 7), ("sf_v1_base", 81, 384, 768, 9)],
)
def test_named_sizes_of_v1(name: str, tokens: int, focusing_width: int, width: int, depth: int) -> None:
    config = named_config(name)
    assert config.focusing == OriginalFocusingConfig(tokens=tokens, width=focusing_width, channels=96, points=36, heads=64)
    assert (config.cortex.block.width, config.cortex.block.heads, config.cortex.depth) == (width, 64, depth)
    assert (config.cortex.prefix_tokens, config.cortex.pooling, config.cortex.pool_first) == (0, "average", True)


def test_a_config_saved_before_there_were_two_fronts_is_bootstrapped() -> None:
    values = to_dict(named_config("sf_base_clip"))
    assert values["focusing"].pop("kind") == "focusing"
    assert from_dict(SparseFormerConfig, values) == named_config("sf_base_clip")


def test_unknown_kind_of_front_in_a_saved_config() -> None:
    values = to_dict(named_config("sf_v1_tiny"))
    values["focusing"]["kind"] = "orignal"
    error = failure(from_dict, kind=SparseFormerConfig, values=values)
    assert "key 'focusing.kind': 'orignal' is none of 'focusing', 'original'" in error.problem


@pytest.mark.parametrize(
    ("values", "problem", "remedy"),
    [
        ({"tokens": 0}, "at least one latent token, not 0", "49"),
        ({"width": 100}, "width of 100 cannot be split over 64 attention heads", "multiple of the heads"),
        ({"heads": 0}, "over 0 attention heads", "multiple of the heads"),
        ({"iterations": 0}, "at least one iteration", "Use 4"),
        ({"channels": 0}, "at least one channel", "Use 96"),
        ({"mixing_reduction": 0}, "cannot divide a width of 256 by 0", "Use 4"),
        ({"mixing_reduction": 257}, "cannot divide a width of 256 by 257", "Use 4"),
        ({"points": 1}, "at least 2 sampling points", "Use 36"),
        ({"stochastic_depth": 1.0}, "a chance in [0, 1), not 1.0", "0.1"),
    ],
)
def test_original_focusing_out_of_range(values: dict[str, Any], problem: str, remedy: str) -> None:
    error = failure(OriginalFocusingConfig, **values)
    assert problem in error.problem
    assert remedy in error.remedy


@pytest.mark.parametrize("values", [{"pool_first": True, "final_norm": False}, {"pool_first": True, "pooled_norm": True}])
def test_pooling_first_needs_the_final_norm_alone(values: dict[str, bool]) -> None:
    assert "Pooling first needs a final norm" in failure(CortexConfig, block=BLOCK, depth=2, **values).problem


def test_stochastic_depth_of_the_cortex_is_a_chance() -> None:
    assert "not -0.1" in failure(CortexConfig, block=BLOCK, depth=2, stochastic_depth=-0.1).problem


def test_the_cortex_of_v1_must_suit_its_heads() -> None:
    cortex = CortexConfig(block=BlockConfig(width=96, heads=2, feed_forward_width=128), depth=1)
    error = failure(SparseFormerConfig, cortex=cortex, focusing=OriginalFocusingConfig())
    assert error.problem == "A cortex width of 96 cannot be split over 64 attention heads."
