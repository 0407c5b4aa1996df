"""Teachers with positions in attention, or of images that are not square, from the command line to the exported file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

import sparseformers
from sparseformers.cli.main import main
from sparseformers.exporting import ExportConfig, export
from sparseformers.inference import fold_embedding
from tests.teachers import huggingface_models as huggingface
from tests.teachers.identity import randomise
from tests.tiny import write_images, write_teacher
from tests.train.runs import entries


def eva02(folder: Path) -> str:
    network = randomise(timm.create_model("eva02_tiny_patch14_224", img_size=56))
    folder.mkdir()
    torch.save(network.state_dict(), folder / "eva02.pth")
    return f"timm:eva02_tiny_patch14_224@{folder / 'eva02.pth'}"


TEACHERS: dict[str, tuple[Callable[[Path], str], int]] = {
    "DINOv3": (lambda folder: huggingface.save(huggingface.dinov3(), folder), 32),
    "EVA-02": (eva02, 56),
    "BEiT": (lambda folder: huggingface.save(huggingface.beit(use_relative_position_bias=True), folder), 32),
    "NaFlex": (lambda folder: huggingface.save(huggingface.siglip2(), folder, {"patch_size": 8}), 32),
}
SLOW = [pytest.param(family, marks=pytest.mark.slow) for family in ("EVA-02", "NaFlex")]
"""The others have positions of the same kinds."""


def bootstrapped(teacher: str, side: str, folder: Path) -> tuple[Path, Path]:
    """A run, resumed, and its photographs."""
    photos, run = folder / "photos", folder / "run"
    write_images(photos, 12)
    options = ["--image-size", side, "--batch-size", "4", "--samples", "16", "--holdout", "0.25", "--workers", "0"]
    options += ["--evaluations", "2", "--precision", "fp32", "--trackers", "none", "--lr", "1e-4"]
    assert main(["bootstrap", "--teacher", teacher, "--data", str(photos), *options, "--out", str(run)]) == 0
    sparseformers.resume(run)
    assert len(entries(run, "held_out")) == 3
    assert sparseformers.evaluate(run, photos).alignment.cosine_mean > 0
    return run, photos


@pytest.mark.parametrize("family", ["DINOv3", "BEiT", *SLOW])
def test_a_teacher__bootstrapped_resumed_measured_exported(family: str, tmp_path: Path) -> None:
    build, side = TEACHERS[family]
    run, photos = bootstrapped(build(tmp_path / "teacher"), str(side), tmp_path)
    assert sparseformers.load(run).config.focusing.grid == (2, 2)
    summary = export(run, tmp_path / "student.onnx", ExportConfig(format="onnx", data=(photos,)))
    assert summary.agreement.images > 0
    assert summary.agreement.greatest_error < 1e-5


def test_a_tall_teacher__bootstrapped_resumed_measured_exported(tmp_path: Path) -> None:
    run, photos = bootstrapped(write_teacher(tmp_path / "teacher.safetensors"), "96x48", tmp_path)
    student = sparseformers.load(run)
    assert student.config.preprocessing.size == (96, 48)
    assert student.config.focusing.grid == (3, 2)  # of 6 x 3 patches
    images = torch.rand(2, 3, 96, 48)
    torch.testing.assert_close(fold_embedding(student)(images), student(images).embedding, rtol=0, atol=1e-5)
    figures = sparseformers.profile(run, batch=(1,), repeats=1).to_dict()
    assert figures["student"]["size"] == [96, 48]
    summary = export(run, tmp_path / "student.pt2", ExportConfig(format="torch-export", size="96x48", data=(photos,)))
    assert summary.agreement.images > 0
