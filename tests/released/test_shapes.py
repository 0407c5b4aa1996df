from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparseformers.config import CLIP_MEAN, FocusingConfig, OriginalFocusingConfig
from sparseformers.errors import WeightsError
from sparseformers.released import RELEASES, activation_of, config_from_state, released_config
from tests.released.reference import released_state, small_weights


def failure(state: dict[str, Tensor], **options: object) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        config_from_state(state, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("name", RELEASES)
def test_the_shapes_of_a_released_model_make_its_configuration(name: str, fixtures: Path) -> None:
    state = released_state(fixtures, name)
    assert config_from_state(state, activation_of(state)) == released_config(name)


def test_a_small_v1(fixtures: Path) -> None:
    config = config_from_state(small_weights(fixtures, "v1"))
    assert config.focusing == OriginalFocusingConfig(tokens=9, width=64, channels=16, points=9)
    assert (config.cortex.block.width, config.cortex.depth, config.cortex.classes) == (128, 2, 10)
    assert (config.preprocessing.crop, config.preprocessing.mean[0]) == (0.875, 0.485)


def test_a_small_clip(fixtures: Path) -> None:
    config = config_from_state(small_weights(fixtures, "bootstrapped_clip"), "quick_gelu")
    assert config.focusing == FocusingConfig(tokens=19, width=64, channels=16, points=9, position_encoding="released")
    assert (config.cortex.block.width, config.cortex.depth, config.cortex.projection) == (128, 2, 24)
    assert (config.cortex.block.activation, config.cortex.block.norm_eps) == ("quick_gelu", 1e-5)
    assert (config.preprocessing.crop, config.preprocessing.mean) == (1.0, CLIP_MEAN)


def test_weights_of_neither_network_name_what_is_missing() -> None:
    error = failure({"patch_embed.proj.weight": torch.zeros(8, 3, 16, 16)})
    assert "not those of one of the authors' networks" in error.problem
    for name in ("cls_embedding.weight", "layers.0.stage_embedding.weight", "layers.0.adaptive_mixing.m_beta"):
        assert name in error.problem
    assert "sparseformers.load" in error.remedy


def test_weights_of_both_networks(fixtures: Path) -> None:
    mixed = small_weights(fixtures, "v1") | {"cls_embedding.weight": torch.zeros(1, 128)}
    error = failure(mixed)
    assert "parts of both" in error.problem
    assert "cls_embedding.weight" in error.problem


def test_quick_gelu_is_refused_for_v1(fixtures: Path) -> None:
    error = failure(small_weights(fixtures, "v1"), activation="quick_gelu")
    assert "that of OpenAI's CLIP, but these are the weights of v1" in error.problem
    assert "'gelu'" in error.remedy


def test_quick_gelu_is_refused_for_augreg(fixtures: Path) -> None:
    error = failure(released_state(fixtures, "sf_base_augreg"), activation="quick_gelu")
    assert "a model bootstrapped from AugReg" in error.problem


def test_gelu_is_refused_for_clip(fixtures: Path) -> None:
    error = failure(released_state(fixtures, "sf_base_clip"))
    assert "a projection without a bias" in error.problem
    assert "--activation quick_gelu" in error.remedy


@pytest.mark.parametrize(
    "missing", ["initial_roi.weight", "layers.1.0.weight", "proj.weight", "layers.0.roi_offset_bias", "proj.bias"]
)
def test_a_missing_weight_that_tells_a_size(missing: str, fixtures: Path) -> None:
    weights = small_weights(fixtures, "v1")
    del weights[missing]
    assert f"missing: {missing}" in failure(weights).problem


def test_a_weight_of_another_number_of_dimensions(fixtures: Path) -> None:
    weights = small_weights(fixtures, "v1") | {"initial_embedding.weight": torch.zeros(9)}
    assert "initial_embedding.weight [9], not 2 dimensions" in failure(weights).problem


def test_shapes_that_make_no_network(fixtures: Path) -> None:
    weights = small_weights(fixtures, "v1") | {"initial_embedding.weight": torch.zeros(9, 100)}
    error = failure(weights)
    assert "make no original SparseFormer (v1): A focusing width of 100 cannot be split over 64" in error.problem
