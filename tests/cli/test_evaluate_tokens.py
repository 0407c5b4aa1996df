from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparseformers.cli.main import main
from sparseformers.inheritance import inherit
from sparseformers.saving import save
from sparseformers.teachers import load_teacher
from tests.tiny import SIDE, write_images, write_teacher


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", 8)
    return tmp_path / "photos"


def model(folder: Path, **options: object) -> str:
    teacher = load_teacher(write_teacher(folder / "teacher.safetensors"), image_size=SIDE)
    inheritance = inherit(teacher, tokens=4, **options)  # type: ignore[arg-type]
    save(inheritance.student, folder / "model.safetensors", provenance=inheritance.provenance)
    return str(folder / "model.safetensors")


def figures(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float]:
    assert main(["evaluate", *arguments, "--json"]) == 0
    alignment: dict[str, float] = json.loads(capsys.readouterr().out)["alignment"]
    return alignment


def test_evaluate__with_as_many_tokens_as_the_teacher_the_untrained_student_is_the_teacher(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = model(tmp_path)
    few = figures(capsys, run, "--data", str(photos), "--precision", "fp32")
    own = figures(capsys, run, "--data", str(photos), "--precision", "fp32", "--tokens", "4")
    patches = load_teacher(f"timm:test_vit@{tmp_path / 'teacher.safetensors'}", image_size=SIDE).patch_tokens
    all_of_them = figures(capsys, run, "--data", str(photos), "--precision", "fp32", "--tokens", str(patches))
    assert own == few
    assert all_of_them["centred_cosine"] > few["centred_cosine"]


@pytest.mark.parametrize(
    ("options", "arguments", "problem"),
    [
        ({"front": "focusing", "focusing_width": 64}, ["--tokens", "9"], "has 4 tokens and no other number"),
        ({}, ["--tokens", "0"], "--tokens must be at least 1, not 0"),
        ({}, ["--tokens", "9", "--shifts"], "--shifts measures at the student's own number of tokens"),
    ],
)
def test_evaluate__tokens_that_it_cannot_have(
    tmp_path: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, object],
    arguments: list[str],
    problem: str,
) -> None:
    assert main(["evaluate", model(tmp_path, **options), "--data", str(photos), *arguments]) == 2
    assert problem in " ".join(capsys.readouterr().err.split())
