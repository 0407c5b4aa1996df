from pathlib import Path

import pytest
import torch

from sparseformers.config import CLIP_MEAN, FocusingConfig, OriginalFocusingConfig
from sparseformers.errors import WeightsError
from sparseformers.released import RELEASES, activation_of, config_from_state, released_config
from sparseformers.released.form import name_table, rename, reverse
from tests.refusals import refused
from tests.released.reference import released_state, small_weights

BOOTSTRAPPED = name_table("focusing", depth=2, head="projection")
V1 = name_table("original", depth=2, head="classifier")


def test_names() -> None:
    for table, theirs, ours in (
        (BOOTSTRAPPED, "layers.0.attn.qkv.bias", "focusing.layer.block.attn.qkv.bias"),
        (BOOTSTRAPPED, "layers.0.roi_adjust_module.3.weight", "focusing.layer.adjustment.delta.3.weight"),
        (BOOTSTRAPPED, "layers.1.0.weight", "focusing.widen.weight"),
        (BOOTSTRAPPED, "layers.2.pe_transition.1.bias", "focusing.last_sampling.position.projection.bias"),
        (BOOTSTRAPPED, "layers.4.mlp.fc1.weight", "cortex.blocks.1.mlp.fc1.weight"),
        (BOOTSTRAPPED, "proj.weight", "cortex.projection.weight"),
        (V1, "layers.1.1.weight", "focusing.widen.1.weight"),
        (V1, "layers.2.norm1.weight", "focusing.last_layer.block.norm1.weight"),
        (V1, "layers.2.adaptive_mixing.m_beta", "focusing.last_layer.sampling.mixing.channel_bias"),
        (V1, "layers.2.roi_adjust_module.1.weight", "focusing.last_layer.adjustment.delta.1.weight"),
        (V1, "proj.bias", "cortex.classifier.bias"),
    ):
        assert rename({theirs: 1}, table) == {ours: 1}
        assert rename({ours: 1}, reverse(table)) == {theirs: 1}
    for name in ("layers.5.norm1.weight", "layers.1.1.weight", "head.weight", "normal.weight"):  # which they do not have
        with pytest.raises(KeyError, match=name):
            rename({name: 1}, name_table("focusing", depth=2, head="classifier"))


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


def test_a_missing_weight_that_tells_a_size__weights_of_other_shapes_or_of_both_networks(fixtures: Path) -> None:
    whole = small_weights(fixtures, "v1")
    for missing in ("initial_roi.weight", "layers.1.0.weight", "proj.weight", "layers.0.roi_offset_bias", "proj.bias"):
        with refused(WeightsError, f"missing: {missing}"):
            config_from_state({name: value for name, value in whole.items() if name != missing})
    for name, shape, problem in (
        ("initial_embedding.weight", (9,), "initial_embedding.weight [9], not 2 dimensions"),
        ("initial_embedding.weight", (9, 100), "no original SparseFormer (v1): A focusing width of 100 cannot be split over 64"),
        ("cls_embedding.weight", (1, 128), "parts of both of the authors' networks (cls_embedding.weight"),
    ):
        with refused(WeightsError, problem):
            config_from_state(whole | {name: torch.zeros(shape)})
