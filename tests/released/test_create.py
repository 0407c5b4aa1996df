from pathlib import Path

import pytest
import torch
from torch import Tensor

import sparseformers
from sparseformers.errors import ConfigError, WeightsError
from sparseformers.named import NAMED_CONFIGS
from sparseformers.released import RELEASES, create_model, released_config
from tests.refusals import refused
from tests.released.reference import small_weights


def test_without_pretrained_the_weights_are_random() -> None:
    with torch.device("meta"):
        model = sparseformers.create_model("sf_base_augreg")
    assert model.config == NAMED_CONFIGS["sf_base_augreg"]


@pytest.mark.usefixtures("tiny_is_small")
def test_pretrained_reads_the_file_in_the_cache_or_one_fetched_by_hand(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"model": weights}, tmp_path / RELEASES["sf_v1_tiny"])
    monkeypatch.setenv("SPARSEFORMERS_CACHE", str(tmp_path))
    torch.save(weights, tmp_path / "by_hand.pth")
    for model in (create_model("sf_v1_tiny", pretrained=True), create_model("sf_v1_tiny", source=tmp_path / "by_hand.pth")):
        assert not model.training
        assert torch.equal(model.cortex.classifier.weight, weights["proj.weight"])
    with pytest.raises(ConfigError, match="Did you mean 'sf_v1_tiny'"):
        create_model("sf_v1_tini", pretrained=True)


@pytest.mark.usefixtures("tiny_is_small")
def test_the_file_of_one_model_is_not_loaded_as_another(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "tiny.pth")
    for name in ("sf_v1_base", "sf_base_clip"):
        problem = f"The file '{tmp_path / 'tiny.pth'}' is the one of 'sf_v1_tiny', not of '{name}'."
        with refused(WeightsError, problem, RELEASES[name]):
            create_model(name, source=tmp_path / "tiny.pth")


def test_a_file_of_no_released_model_or_of_the_other_variant_is_not_loaded(fixtures: Path, tmp_path: Path) -> None:
    path, original, bootstrapped = tmp_path / "official.pth", "original SparseFormer (v1)", "bootstrapped SparseFormer"
    for reference, name, reason in (
        ("v1", "sf_v1_tiny", "it has the sizes of no released model"),
        ("v1", "sf_base_augreg", f"its network is the {original}, not the {bootstrapped}."),
        ("bootstrapped_clip", "sf_v1_tiny", f"its network is the {bootstrapped}, not the {original}."),
    ):
        torch.save(small_weights(fixtures, reference), path)
        remedy = f"Give {RELEASES[name]}; sparseformers convert FILE OUT takes"
        with refused(WeightsError, f"The file '{path}' is not the one of '{name}': {reason}", remedy):
            create_model(name, source=path)


def test_released_models_differ_from_the_named_ones_in_encoding_and_epsilon() -> None:
    config = released_config("sf_large_augreg")
    assert config.focusing.position_encoding == "released"  # type: ignore[union-attr]
    assert config.cortex.block.norm_eps == 1e-5
    assert released_config("sf_v1_small") == NAMED_CONFIGS["sf_v1_small"]
    assert set(RELEASES) == set(NAMED_CONFIGS)
