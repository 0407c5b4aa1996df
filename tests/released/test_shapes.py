from pathlib import Path

import pytest
import torch

from sparseformers.config import CLIP_MEAN, FocusingConfig, OriginalFocusingConfig
from sparseformers.errors import WeightsError
from sparseformers.released import RELEASES, activation_of, config_from_state, released_config
from tests.refusals import refused
from tests.released.reference import released_state, small_weights


@pytest.mark.parametrize("name", RELEASES)
def test_the_shapes_of_a_released_model_make_its_configuration(name: str, fixtures: Path) -> None:
    state = released_state(fixtures, name)
    assert config_from_state(state, activation_of(state)) == released_config(name)


def test_a_small_v1_and_a_small_clip(fixtures: Path) -> None:
    config = config_from_state(small_weights(fixtures, "v1"))
    assert config.focusing == OriginalFocusingConfig(tokens=9, width=64, channels=16, points=9)
    assert (config.cortex.block.width, config.cortex.depth, config.cortex.classes) == (128, 2, 10)
    assert (config.preprocessing.crop, config.preprocessing.mean[0]) == (0.875, 0.485)
    config = config_from_state(small_weights(fixtures, "bootstrapped_clip"), "quick_gelu")
    assert config.focusing == FocusingConfig(tokens=19, width=64, channels=16, points=9, position_encoding="released")
    assert (config.cortex.block.width, config.cortex.depth, config.cortex.projection) == (128, 2, 24)
    assert (config.cortex.block.activation, config.cortex.block.norm_eps) == ("quick_gelu", 1e-5)
    assert (config.preprocessing.crop, config.preprocessing.mean) == (1.0, CLIP_MEAN)


def test_weights_of_neither_network_name_what_is_missing() -> None:
    for name in ("cls_embedding.weight", "layers.0.stage_embedding.weight", "layers.0.adaptive_mixing.m_beta"):
        said = rf"not those of one of the authors' networks.*{name}.*needs no converting"
        with pytest.raises(WeightsError, match=said):
            config_from_state({"patch_embed.proj.weight": torch.zeros(8, 3, 16, 16)})


def test_activations_that_are_not_those_of_the_weights(fixtures: Path) -> None:
    of_clip = "that of OpenAI's CLIP, but these are the weights of v1"
    for state, activation, problem, remedy in (
        (small_weights(fixtures, "v1"), "quick_gelu", of_clip, "'gelu'"),
        (released_state(fixtures, "sf_base_augreg"), "quick_gelu", "a model bootstrapped from AugReg", ""),
        (released_state(fixtures, "sf_base_clip"), "gelu", "a projection without a bias", "--activation quick_gelu"),
    ):
        with refused(WeightsError, problem, remedy):
            config_from_state(state, activation)


@pytest.mark.parametrize(
    "missing", ["initial_roi.weight", "layers.1.0.weight", "proj.weight", "layers.0.roi_offset_bias", "proj.bias"]
)
def test_a_missing_weight_that_tells_a_size(missing: str, fixtures: Path) -> None:
    weights = small_weights(fixtures, "v1")
    del weights[missing]
    with refused(WeightsError, f"missing: {missing}"):
        config_from_state(weights)


@pytest.mark.parametrize(
    ("name", "shape", "problem"),
    [
        ("initial_embedding.weight", (9,), "initial_embedding.weight [9], not 2 dimensions"),
        ("initial_embedding.weight", (9, 100), "no original SparseFormer (v1): A focusing width of 100 cannot be split over 64"),
        ("cls_embedding.weight", (1, 128), "parts of both of the authors' networks (cls_embedding.weight"),
    ],
)
def test_weights_of_other_shapes_or_of_both_networks(name: str, shape: tuple[int, ...], problem: str, fixtures: Path) -> None:
    with refused(WeightsError, problem):
        config_from_state(small_weights(fixtures, "v1") | {name: torch.zeros(shape)})
