from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import sparseformers
from sparseformers.errors import WeightsError
from sparseformers.released import activation_of, load_official
from tests.refusals import refused
from tests.released.reference import small_weights


def failure(source: object) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        load_official(source)  # type: ignore[arg-type]
    return caught.value


def written_pth(weights: dict[str, Tensor], folder: Path) -> Path:
    torch.save(weights, folder / "official.pth")
    return folder / "official.pth"


def test_every_form_of_source_gives_the_same_model(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": weights, "epoch": 3}, tmp_path / "under_model.pth")
    save_file(weights, tmp_path / "official.safetensors")
    files = (written_pth(weights, tmp_path), str(tmp_path / "under_model.pth"), tmp_path / "official.safetensors")
    for source in (*files, weights, {"model": weights}):
        model = load_official(source)
        assert not model.training
        assert torch.equal(model.cortex.classifier.weight, weights["proj.weight"])
        assert torch.equal(model.focusing.last_layer.sampling.mixing.channel_bias, weights["layers.2.adaptive_mixing.m_beta"])


def test_one_key_missing(fixtures: Path, tmp_path: Path) -> None:
    for name, missing in (
        ("v1", ("layers.0.adaptive_mixing.s_beta", "norm.weight", "layers.2.roi_adjust_module.1.weight")),
        ("bootstrapped_clip", ("cls_embedding.weight", "layers.0.pe_transition.1.weight", "norm.bias")),
    ):
        weights = small_weights(fixtures, name)
        for key in missing:
            path = written_pth({other: value for other, value in weights.items() if other != key}, tmp_path)
            with refused(WeightsError, f"The weights of '{path}' do not fit (missing: {key})."):
                load_official(path, activation=activation_of(weights))


def test_weights_that_do_not_fit_are_named(weights: dict[str, Tensor]) -> None:
    for name, shape, said in (
        ("layers.0.pe_transitio.weight", (3,), "the given state dict do not fit (unexpected: layers.0.pe_transitio.weight)"),
        ("layers.3.attn.proj.weight", (128, 127), "shape: layers.3.attn.proj.weight [128, 127] instead of [128, 128])"),
        ("initial_embedding.weight", (10, 64), "initial_embedding.weight [10, 64] instead of [9, 64]"),
    ):
        assert said in failure(weights | {name: torch.zeros(shape)}).problem
    moved = failure({name.replace("layers.4.", "layers.5."): value for name, value in weights.items()}).problem
    for said in ("missing: layers.4.attn.proj.bias", "unexpected: layers.5.attn.proj.bias", "and 2 more"):
        assert said in moved


@pytest.mark.parametrize("name", ["v1", "bootstrapped_clip"])
def test_any_aspect_ratio__alone_as_in_a_batch__and_saved_and_loaded_again(name: str, fixtures: Path, tmp_path: Path) -> None:
    weights = small_weights(fixtures, name)
    model = load_official(weights, activation=activation_of(weights))
    sparseformers.save(model, tmp_path / "model.safetensors")
    again = sparseformers.load(tmp_path / "model.safetensors")
    assert again.config == model.config
    for size in ((1, 3, 32, 32), (1, 3, 96, 40), (2, 3, 33, 71), (3, 3, 40, 72)):
        images = torch.rand(size)
        together = model(images)
        assert together.embedding.isfinite().all()
        assert torch.equal(again(images).embedding, together.embedding)
        assert torch.equal(again(images).tokens, together.tokens)
        for number in range(size[0]):
            alone = model(images[number : number + 1])
            torch.testing.assert_close(alone.embedding[0], together.embedding[number], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(alone.rois[0], together.rois[number], atol=1e-5, rtol=1e-5)


def test_a_file_cut_short_no_file_and_no_weights(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = written_pth(weights, tmp_path)
    path.write_bytes(path.read_bytes()[:-5000])
    assert "cannot be read as weights" in failure(path).problem
    assert "There is no weight file" in failure(tmp_path / "nowhere.pth").problem
    assert failure({}).problem == "The given state dict holds no state dict."
    assert failure({"model": {"a": 1}}).problem == "The given state dict holds no state dict."


def test_a_model_of_sparseformers_is_none_of_the_authors(weights: dict[str, Tensor], tmp_path: Path) -> None:
    sparseformers.save(load_official(weights), tmp_path / "model.safetensors")
    error = failure(tmp_path / "model.safetensors")
    assert "not those of one of the authors' networks" in error.problem
    assert "needs no converting" in error.remedy
