"""Teachers of families with positions in attention, from the command line to the exported file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

import sparseformers
from sparseformers.cli.main import main
from sparseformers.exporting import ExportConfig, export
from tests.teachers import huggingface_models as huggingface
from tests.teachers.identity import randomise
from tests.tiny import write_images
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


@pytest.mark.parametrize("family", TEACHERS)
def test_a_teacher__bootstrapped_resumed_measured_exported(family: str, tmp_path: Path) -> None:
    build, side = TEACHERS[family]
    photos, run = tmp_path / "photos", tmp_path / "run"
    write_images(photos, 12)
    options = ["--image-size", str(side), "--batch-size", "4", "--samples", "16", "--holdout", "0.25", "--workers", "0"]
    options += ["--evaluations", "2", "--precision", "fp32", "--trackers", "none", "--lr", "1e-4"]
    teacher = build(tmp_path / "teacher")
    assert main(["bootstrap", "--teacher", teacher, "--data", str(photos), *options, "--out", str(run)]) == 0
    sparseformers.resume(run)
    student = sparseformers.load(run)
    assert student.config.focusing.grid == (2, 2)
    assert len(entries(run, "held_out")) == 3
    assert sparseformers.evaluate(run, photos).alignment.cosine_mean > 0
    summary = export(run, tmp_path / "student.onnx", ExportConfig(format="onnx", data=(photos,)))
    assert summary.agreement.images > 0
    assert summary.agreement.greatest_error < 1e-5
