"""Teachers of images that are not square, from the command line to the exported file."""

from pathlib import Path

import pytest
import torch

import sparseformers
from sparseformers.cli.main import main
from sparseformers.errors import ConfigError
from sparseformers.exporting import ExportConfig, export
from sparseformers.inference import fold_embedding
from sparseformers.train import BootstrapConfig
from sparseformers.train.settings import read_size
from tests.tiny import write_images, write_teacher
from tests.train.runs import entries


def test_a_tall_teacher__bootstrapped_resumed_measured_exported(tmp_path: Path) -> None:
    photos, run = tmp_path / "photos", tmp_path / "run"
    write_images(photos, 12)
    options = ["--image-size", "96x48", "--batch-size", "4", "--samples", "16", "--holdout", "0.25", "--workers", "0"]
    options += ["--evaluations", "2", "--precision", "fp32", "--trackers", "none", "--lr", "1e-4"]
    teacher = write_teacher(tmp_path / "teacher.safetensors")
    assert main(["bootstrap", "--teacher", teacher, "--data", str(photos), *options, "--out", str(run)]) == 0
    sparseformers.resume(run)
    student = sparseformers.load(run)
    assert student.config.preprocessing.size == (96, 48)
    assert student.config.focusing.grid == (3, 2)  # of 6 x 3 patches
    assert len(entries(run, "held_out")) == 3
    images = torch.rand(2, 3, 96, 48)
    torch.testing.assert_close(fold_embedding(student)(images), student(images).embedding, rtol=0, atol=1e-5)
    assert sparseformers.evaluate(run, photos).alignment.cosine_mean > 0
    figures = sparseformers.profile(run, batch=(1,), repeats=1).to_dict()
    assert figures["student"]["size"] == [96, 48]
    summary = export(run, tmp_path / "student.pt2", ExportConfig(format="torch-export", size="96x48", data=(photos,)))
    assert summary.agreement.images > 0


def test_image_size__of_the_command_line_and_of_python() -> None:
    for given, read in ((224, 224), ((256, 128), (256, 128)), ([256, 128], (256, 128))):
        settings = BootstrapConfig.of(teacher="bundled", data=["photos"], image_size=given)
        assert settings.network.image_size == read
        assert BootstrapConfig.of(**settings.flat()) == settings
    with pytest.raises(ConfigError, match="--image-size must be at least 32, not 16"):
        BootstrapConfig.of(teacher="bundled", data=["photos"], image_size=(64, 16))


@pytest.mark.parametrize("text", ["256*128", "256x", "x128", "1x2x3", "", "-224", "224.5"])
def test_read_size__says_what_it_takes(text: str) -> None:
    with pytest.raises(ValueError, match="neither a side in pixels nor a height and a width, such as 256x128"):
        read_size(text)


def test_teacher_weights__go_with_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chooses between networks in a file, and the teacher 'bundled' is none"):
        BootstrapConfig.of(teacher="bundled", teacher_weights="ema", data=["photos"])
    settings = BootstrapConfig.of(teacher="timm:vit@a.pth", teacher_weights="ema", data=["photos"])
    assert settings.network.teacher == "timm:vit@a.pth#ema"
    assert BootstrapConfig.of(**settings.flat()) == settings
