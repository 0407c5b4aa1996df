from pathlib import Path

import pytest
import torch
from torch import Tensor

import sparseformers
from sparseformers.released import RELEASES
from tests.cli.command import Command
from tests.released.reference import small_weights


@pytest.fixture
def official(weights: dict[str, Tensor], tmp_path: Path) -> Path:
    torch.save({"model": weights}, tmp_path / "official.pth")
    return tmp_path / "official.pth"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "native.safetensors"


def test_convert__makes_a_file_that_load_reads(official: Path, weights: dict[str, Tensor], out: Path, command: Command) -> None:
    assert "original, 9 latent tokens, 0.8M parameters" in command("convert", official, out)
    images = torch.rand(1, 3, 40, 72)
    expected, loaded = sparseformers.load_official(weights)(images), sparseformers.load(out)(images)
    assert torch.equal(expected.embedding, loaded.embedding)
    assert torch.equal(expected.logits, loaded.logits)


def test_convert__clip_with_its_activation(fixtures: Path, tmp_path: Path, out: Path, command: Command) -> None:
    torch.save(small_weights(fixtures, "bootstrapped_clip"), tmp_path / "clip.pth")
    assert "--activation quick_gelu" in command.refused("convert", tmp_path / "clip.pth", out)
    assert not out.exists()
    command("convert", tmp_path / "clip.pth", out, "--activation", "quick_gelu")
    assert sparseformers.load(out).config.cortex.block.activation == "quick_gelu"


@pytest.mark.usefixtures("tiny_is_small")
def test_convert__by_name(official: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    command("convert", "sf_v1_tiny", tmp_path / "first.safetensors", "--from", official)
    (tmp_path / "cache").mkdir()
    official.rename(tmp_path / "cache" / RELEASES["sf_v1_tiny"])
    monkeypatch.setenv("SPARSEFORMERS_CACHE", str(tmp_path / "cache"))
    command("convert", "sf_v1_tiny", tmp_path / "second.safetensors")
    first, second = (sparseformers.load(tmp_path / f"{name}.safetensors") for name in ("first", "second"))
    images = torch.rand(1, 3, 48, 32)
    assert first.config == second.config
    assert torch.equal(first(images).embedding, second(images).embedding)


def test_convert__bad_input(official: Path, tmp_path: Path, out: Path, command: Command) -> None:
    for words, problem in (
        ((tmp_path / "nowhere.pth", out), "is neither a file nor the name of a released model"),
        (("sf_v1_tine", out), "Did you mean 'sf_v1_tiny'"),
        ((official, tmp_path / "native.pth"), "no name of a model file"),
        ((official, out, "--activation", "quick_gelu"), "weights of v1, with a classifier"),
        (("sf_base_clip", out, "--from", official), "is not the one of 'sf_base_clip'"),
        ((official, out, "--from", official), "goes with the name of a released model"),
        (("sf_base_clip", out, "--activation", "gelu"), "has an activation of its own"),
    ):
        assert problem in command.refused("convert", *words)
    assert not out.exists()
    out.write_text("precious")
    assert "is there already" in command.refused("convert", official, out)
    assert out.read_text() == "precious"
    command("convert", official, out, "--overwrite")


@pytest.mark.usefixtures("tiny_is_small")
def test_profile__of_v1_has_no_teacher(official: Path, weights: dict[str, Tensor], out: Path, command: Command) -> None:
    command("convert", official, out)
    for model in ("sf_v1_tiny", out):
        profile = command.json("profile", model, "--repeats", 1, "--batch", 1)
        assert profile["student"]["parameters"] == sum(value.numel() for value in weights.values())
        assert profile["teacher"] is None
        assert profile["parameter_groups"] == {}
