from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sparseformers
from sparseformers.cli.main import main
from sparseformers.named import NAMED_CONFIGS
from sparseformers.released import RELEASES, config_from_state
from tests.released.reference import small_weights


@pytest.fixture
def weights(fixtures: Path) -> dict[str, Tensor]:
    return small_weights(fixtures, "v1")


@pytest.fixture
def official(weights: dict[str, Tensor], tmp_path: Path) -> Path:
    torch.save({"model": weights}, tmp_path / "official.pth")
    return tmp_path / "official.pth"


@pytest.fixture
def tiny_is_small(weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """As if v1 tiny were as small as the reference model."""
    monkeypatch.setitem(NAMED_CONFIGS, "sf_v1_tiny", config_from_state(weights))  # type: ignore[arg-type]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a refused conversion prints; it has to end with code 2."""
    assert main(["convert", *map(str, arguments)]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_help__shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["convert", "--help"])
    assert stop.value.code == 0
    assert "Example: sparseformers convert" in " ".join(capsys.readouterr().out.split())


def test_convert__makes_a_file_that_load_reads(
    official: Path, weights: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "native.safetensors"
    assert main(["convert", str(official), str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "original, 9 latent tokens, 0.8M parameters" in printed
    images = torch.rand(1, 3, 40, 72)
    expected, loaded = sparseformers.load_official(weights)(images), sparseformers.load(out)(images)
    assert torch.equal(expected.embedding, loaded.embedding)
    assert expected.logits is not None
    assert loaded.logits is not None
    assert torch.equal(expected.logits, loaded.logits)


def test_convert__clip_with_its_activation(fixtures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(small_weights(fixtures, "bootstrapped_clip"), tmp_path / "clip.pth")
    out = tmp_path / "native.safetensors"
    assert "--activation quick_gelu" in refusal(capsys, tmp_path / "clip.pth", out)
    assert not out.exists()
    assert main(["convert", str(tmp_path / "clip.pth"), str(out), "--activation", "quick_gelu"]) == 0
    assert sparseformers.load(out).config.cortex.block.activation == "quick_gelu"


@pytest.mark.usefixtures("tiny_is_small")
def test_convert__by_name_from_a_file_or_the_cache(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["convert", "sf_v1_tiny", str(tmp_path / "first.safetensors"), "--from", str(official)]) == 0
    (tmp_path / "cache").mkdir()
    official.rename(tmp_path / "cache" / RELEASES["sf_v1_tiny"])
    monkeypatch.setenv("SPARSEFORMERS_CACHE", str(tmp_path / "cache"))
    assert main(["convert", "sf_v1_tiny", str(tmp_path / "second.safetensors")]) == 0
    first, second = (sparseformers.load(tmp_path / f"{name}.safetensors") for name in ("first", "second"))
    images = torch.rand(1, 3, 48, 32)
    assert first.config == second.config
    assert torch.equal(first(images).embedding, second(images).embedding)


def test_convert__bad_input(official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "native.safetensors"
    assert "There is no weight file" in refusal(capsys, tmp_path / "nowhere.pth", out)
    assert "Did you mean 'sf_v1_tiny'" in refusal(capsys, "sf_v1_tine", out)
    assert "no name of a model file" in refusal(capsys, official, tmp_path / "native.pth")
    assert "weights of v1, with a classifier" in refusal(capsys, official, out, "--activation", "quick_gelu")
    assert "is not the one of 'sf_base_clip'" in refusal(capsys, "sf_base_clip", out, "--from", official)
    assert "goes with the name of a released model" in refusal(capsys, official, out, "--from", official)
    assert "has an activation of its own" in refusal(capsys, "sf_base_clip", out, "--activation", "gelu")
    assert not out.exists()
    out.write_text("precious")
    assert "is there already" in refusal(capsys, official, out)
    assert out.read_text() == "precious"
    assert main(["convert", str(official), str(out), "--overwrite"]) == 0


@pytest.mark.usefixtures("tiny_is_small")
def test_profile__of_v1_has_no_teacher(
    official: Path, weights: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "native.safetensors"
    assert main(["convert", str(official), str(out)]) == 0
    capsys.readouterr()
    for model in ("sf_v1_tiny", str(out)):
        assert main(["profile", model, "--repeats", "1", "--batch", "1", "--json"]) == 0
        profile = json.loads(capsys.readouterr().out)
        assert profile["student"]["parameters"] == sum(value.numel() for value in weights.values())
        assert profile["teacher"] is None
        assert profile["parameter_groups"] == {}
