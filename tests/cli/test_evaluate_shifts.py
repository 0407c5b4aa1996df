"""``evaluate --shifts`` and ``evaluate --limit`` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sparseformers
from sparseformers.cli.main import main
from sparseformers.evaluation.embeddings import thinned
from sparseformers.inheritance import inherit
from sparseformers.teachers import load_teacher
from tests.cli.test_main import refusal
from tests.model.small import small_model
from tests.tiny import SIDE, write_images, write_teacher


@pytest.fixture
def model(tmp_path: Path) -> str:
    teacher = load_teacher(write_teacher(tmp_path / "teacher.safetensors"), image_size=SIDE)
    student, _, provenance = inherit(teacher, front="grid", tokens=4)
    sparseformers.save(student, tmp_path / "model.safetensors", provenance=provenance)
    return str(tmp_path / "model.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", 5)
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def _read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two dozen passes over a handful of images are no work for other processes."""
    monkeypatch.setattr("sparseformers.evaluation.embeddings.default_workers", lambda: 0)


def test_help__shows_how_to_measure_shifts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "Example: sparseformers evaluate runs/first --data photos/validation --shifts" in " ".join(
        capsys.readouterr().out.split()
    )


def test_shifts__tells_where_the_student_loses(model: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "broken.png").write_bytes(b"nothing")
    assert main(["evaluate", model, "--data", str(photos), "--shifts", "--precision", "fp32"]) == 0
    printed = capsys.readouterr().out
    assert "…" not in printed  # nothing is cut off in a narrow terminal
    for part in ("blur 2%", "1/3 in a scene", "448 px", "4:3", "photograph_000.jpg", "5 images, 1 unreadable skipped"):
        assert part in printed, part
    assert printed.count("skipped: ") == 1
    assert "broken.png" in printed


def test_shifts__json_is_all_of_standard_output(model: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", model, "--data", str(photos), "--shifts", "--limit", "3", "--precision", "fp32", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["images"] == 3
    assert figures["skipped_images"] == []
    assert figures["rows"][0]["condition"] == "clean"
    # It was not trained, so it is the low-resolution teacher with as many tokens.
    for row in figures["rows"]:
        assert row["student"]["same_image"] == pytest.approx(row["low_resolution"]["same_image"], abs=0.02)
        assert row["student"]["top1"] is None
    assert [Path(image["path"]).name for image in figures["worst"]]


def test_shifts__class_folders_give_top1_through_the_teachers_classifier(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("apple", "bird", "cup")):
        for split, count in (("train", 1), ("test", 2)):
            write_images(tmp_path / "classes" / split / name, count, seed=10 * number + count)
    data = str(tmp_path / "classes")
    assert main(["evaluate", model, "--data", data, "--shifts", "--precision", "fp32", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["images"] == 6
    for row in figures["rows"]:
        for network in ("student", "teacher", "low_resolution"):
            assert row[network]["top1"] * 6 == pytest.approx(round(row[network]["top1"] * 6))
    # Of classes that are not the classifier's there is no top-1.
    write_images(tmp_path / "classes" / "train" / "door", 1, seed=40)
    write_images(tmp_path / "classes" / "test" / "door", 1, seed=41)
    assert main(["evaluate", model, "--data", data, "--shifts", "--limit", "2", "--precision", "fp32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["teacher"]["top1"] is None


def test_limit__thins_the_plain_evaluation_too(model: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", model, "--data", str(photos), "--limit", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alignment"]["images"] == 3


def test_thinned__draws_evenly() -> None:
    assert thinned(range(10), 5) == [0, 2, 4, 6, 8]
    assert thinned(range(10), 3) == [0, 3, 6]
    assert thinned(range(3), 0) == thinned(range(3), 7) == [0, 1, 2]


def test_bad_input(model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()

    def refused(*changes: str, run: str = model, data: Path = photos) -> str:
        return refusal(capsys, "evaluate", run, "--data", str(data), "--shifts", *changes)

    assert "holds no images. Images are files that end in" in refused(data=tmp_path / "empty")
    assert "cannot go with --views. Leave one of them out." in refused("--views", "2")
    assert "on --limit 1 images. Give 2 or more, or 0 for all." in refused("--limit", "1")
    sparseformers.save(small_model(), tmp_path / "orphan.safetensors")
    said = refused(run=str(tmp_path / "orphan.safetensors"))
    assert "does not say which teacher it was made from. Use a model of a bootstrapping run, or name one" in said
    for path in photos.iterdir():
        path.write_bytes(b"nothing")
    assert "on two images or more, not on 0. Evaluate on a folder with more readable images." in refused()
