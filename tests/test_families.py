"""Teachers of families with positions in attention, and one of tall images, from the command line to the exported file."""

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
    torch.save(network.state_dict(), folder / "eva02.pth")
    return f"timm:eva02_tiny_patch14_224@{folder / 'eva02.pth'}"


TEACHERS: dict[str, tuple[Callable[[Path], str], str]] = {
    "DINOv3": (lambda folder: huggingface.save(huggingface.dinov3(), folder / "a"), "32"),
    "EVA-02": (eva02, "56"),
    "BEiT": (lambda folder: huggingface.save(huggingface.beit(use_relative_position_bias=True), folder / "a"), "32"),
    "NaFlex": (lambda folder: huggingface.save(huggingface.siglip2(), folder / "a", {"patch_size": 8}), "32"),
    "tall": (lambda folder: write_teacher(folder / "teacher.safetensors"), "96x48"),
}


@pytest.mark.parametrize("family", [pytest.param(name, marks=pytest.mark.slow if name == "EVA-02" else ()) for name in TEACHERS])
def test_a_teacher__bootstrapped_resumed_measured_exported(family: str, tmp_path: Path) -> None:
    (build, size), photos, run = TEACHERS[family], tmp_path / "photos", tmp_path / "run"
    write_images(photos, 8)
    options = ["--image-size", size, "--batch-size", "4", "--samples", "8", "--holdout", "0.25", "--workers", "0"]
    options += ["--evaluations", "1", "--precision", "fp32", "--trackers", "none", "--lr", "1e-4", "--dense"]
    options += [] if family == "tall" else ["--front", "grid"]
    assert main(["bootstrap", "--teacher", build(tmp_path), "--data", str(photos), *options, "--out", str(run)]) == 0
    sparseformers.resume(run)
    student = sparseformers.load(run)
    grid = student.config.focusing.start if family == "tall" else student.config.focusing.grid
    assert grid == ((2, 1) if family == "tall" else (2, 2))  # of 6 x 3 patches, or 4 x 4
    assert len(entries(run, "held_out")) == 2
    images = torch.rand(2, 3, *student.config.preprocessing.size)
    torch.testing.assert_close(fold_embedding(student)(images), student(images).embedding, rtol=0, atol=1e-5)
    assert sparseformers.evaluate(run, photos).alignment.cosine_mean > 0
    assert student.dense(images).shape[-2:] == ((6, 3) if family == "tall" else (4, 4))
    assert sparseformers.evaluate(run, photos, dense=True, precision="fp32").rows[0].cosine > 0
    if family == "tall":
        assert student.config.preprocessing.size == (96, 48)
        assert sparseformers.profile(run, batch=(1,), repeats=1).to_dict()["student"]["size"] == [96, 48]
        summary = export(run, tmp_path / "student.pt2", ExportConfig(format="torch-export", size=size, data=(photos,)))
    else:
        summary = export(run, tmp_path / "student.onnx", ExportConfig(format="onnx", data=(photos,)))
        assert summary.agreement.greatest_error < 1e-5
    assert summary.agreement.images > 0
