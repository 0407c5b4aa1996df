import json
from pathlib import Path

import pytest

from examples.pasted_objects import Settings
from examples.pasted_objects import main as paste
from sparseformers.evaluation import evaluate
from sparseformers.evaluation.dense import DenseReport
from tests.cli.command import Command, save_student
from tests.tiny import write_images


@pytest.fixture
def pasted(tmp_path: Path) -> Path:
    """Eight pictures with masks of classes."""
    write_images(tmp_path / "photos", 2)
    paste(Settings(out=tmp_path / "pasted", objects=tmp_path / "photos", backgrounds=tmp_path / "photos", count=8, side=96))
    return tmp_path / "pasted"


def test_evaluate__maps_and_what_they_are_good_for(tmp_path: Path, pasted: Path, command: Command) -> None:
    model = save_student(tmp_path, dense_layer=-1)
    options = ["--dense", "--masks", pasted / "classes", "--precision", "fp32"]
    report = command.json("evaluate", model, "--data", pasted / "images", *options)
    names = [row["name"] for row in report["rows"]]
    assert names[:3] == ["student", "its tokens alone", "teacher, as many patches"]
    assert (report["images"], report["annotated"], report["skipped"]) == (8, 8, 0)
    student, tokens, small = report["rows"][:3]
    assert student["multiply_adds"] > tokens["multiply_adds"]
    # A new student is its teacher on a smaller image, its read-out adds nothing, and its tokens are enlarged alike.
    assert student["cosine"] == pytest.approx(tokens["cosine"], abs=1e-5) == pytest.approx(small["cosine"], abs=0.02)
    assert student["cosine_p05"] <= min(student["cosine_detailed"], student["cosine_plain"])
    assert 0 <= report["teacher_probe"]["linear"] <= 1
    said = command("evaluate", model, "--data", pasted / "images", *options)
    assert "segmentation learnt on the teacher's maps of half of 8 images" in said


def test_evaluate__without_masks_and_read_out_and_by_another_layer(tmp_path: Path, pasted: Path) -> None:
    (pasted / "images" / "broken.png").write_bytes(b"nothing")
    plain = evaluate(save_student(tmp_path), pasted / "images", dense=True, precision="fp32")
    assert isinstance(plain, DenseReport)
    assert [row.name for row in plain.rows][:2] == ["student", "teacher, as many patches"]
    assert (plain.skipped, plain.rows[0].probe, plain.layer) == (1, None, -1)
    earlier = evaluate(save_student(tmp_path, dense_layer=-2), pasted / "images", dense=True, precision="fp32")
    assert earlier.layer == -2
    assert json.dumps(earlier.to_dict())
    assert earlier.rows[0].cosine != pytest.approx(plain.rows[0].cosine, abs=1e-4)


def test_refusals(tmp_path: Path, pasted: Path, command: Command) -> None:
    model = save_student(tmp_path, dense_layer=-1)
    asked = ("evaluate", model, "--data", pasted / "images")
    assert "--dense measures the central view" in command.refused(*asked, "--dense", "--shifts")
    assert "--dense measures at the student's own number of tokens" in command.refused(*asked, "--dense", "--tokens", "2")
    assert "--masks is for measuring the focus or maps only" in command.refused(*asked, "--masks", pasted / "classes")
    (pasted / "classes").rename(pasted / "images" / "classes")
    inside = command.json(*asked, "--dense", "--masks", pasted / "images" / "classes", "--precision", "fp32")
    assert (inside["images"], inside["annotated"]) == (8, 8)
    assert "has a mask in" in command.refused(*asked, "--dense", "--masks", tmp_path / "photos")
