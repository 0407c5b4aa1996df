"""``evaluate --focus`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import sparseformers
from examples.pasted_objects import Settings
from examples.pasted_objects import main as paste
from sparseformers.cli.main import main
from sparseformers.inheritance import inherit
from sparseformers.teachers import load_teacher
from tests.cli.test_main import refusal
from tests.tiny import SIDE, write_images, write_teacher


def student(folder: Path, **options: object) -> str:
    teacher = load_teacher(write_teacher(folder / "teacher.safetensors"), image_size=SIDE)
    made, _, provenance = inherit(teacher, tokens=4, **options)  # type: ignore[arg-type]
    sparseformers.save(made, folder / "model.safetensors", provenance=provenance)
    return str(folder / "model.safetensors")


@pytest.fixture
def model(tmp_path: Path) -> str:
    return student(tmp_path, front="focusing", focusing_width=64)


@pytest.fixture
def pasted(tmp_path: Path) -> Path:
    """Three pictures with objects of known places, made by the example."""
    write_images(tmp_path / "photos", 2)
    paste(Settings(out=tmp_path / "pasted", objects=tmp_path / "photos", backgrounds=tmp_path / "photos", count=3, side=96))
    return tmp_path / "pasted"


@pytest.fixture(autouse=True)
def _read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of images is no work for other processes."""
    monkeypatch.setattr("sparseformers.evaluation.embeddings.default_workers", lambda: 0)


def figures(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, list]:  # type: ignore[type-arg]
    assert main(["evaluate", *map(str, arguments), "--focus", "--precision", "fp32", "--json"]) == 0
    content: dict[str, list] = json.loads(capsys.readouterr().out)  # type: ignore[type-arg]
    return content


def test_help__shows_how_to_measure_the_focus(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Example: sparseformers evaluate runs/first --data photos/validation --focus --masks photos/masks" in said


def test_focus__needs_no_teacher(model: str, pasted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "teacher.safetensors").unlink()
    (report,) = figures(capsys, model, "--data", pasted / "images")["focus"]
    assert (report["images"], report["tokens"], len(report["stages"])) == (3, 4, 5)
    assert report["area"] is None
    assert report["stages"][0]["moved"] is None
    assert report["stages"][1]["moved"]["mean"] >= 0


def test_focus__masks_and_boxes_of_the_same_objects(model: str, pasted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (by_masks,) = figures(capsys, model, "--data", pasted / "images", "--masks", pasted / "masks")["focus"]
    assert by_masks["annotated"] == 3
    assert 0.02 < by_masks["area"]["mean"] < 0.3
    assert by_masks["stages"][-1]["foreground"]["ratio"]["mean"] > 0
    (by_boxes,) = figures(capsys, model, "--data", pasted / "images", "--boxes", pasted / "boxes.json")["focus"]
    # A box around an ellipse is larger than it, by 4 / pi.
    assert by_boxes["area"]["mean"] / by_masks["area"]["mean"] == pytest.approx(4 / 3.14159, abs=0.12)


def test_focus__is_refused_where_rois_cannot_move(tmp_path: Path, pasted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = student(tmp_path, front="grid")
    said = refusal(capsys, "evaluate", run, "--data", str(pasted / "images"), "--focus")
    assert "are the cells of a grid and do not move, so there is no focus to measure." in said
    assert "Give a student with the front focusing, or leave out --focus." in said


def test_focus__names_what_was_left_out(model: str, pasted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, _ = sorted((pasted / "masks").iterdir())
    first.unlink()
    second.write_bytes(b"nothing")
    (pasted / "images" / "broken.png").write_bytes(b"nothing")
    arguments = ["evaluate", model, "--data", str(pasted / "images"), "--focus", "--masks", str(pasted / "masks")]
    assert main([*arguments, "--precision", "fp32"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "…" not in printed
    for part in (
        "3 images, 1 unreadable skipped",
        "2 without annotation: ",
        f"{first.stem}.jpg",
        "broken.png not an image",
        f"{second} not an image",
        "iteration 1",
    ):
        assert part in printed, part


def test_focus__masks_beside_the_images_are_no_images(model: str, pasted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = pasted / "images" / "masks"
    (pasted / "masks").rename(masks)
    (report,) = figures(capsys, model, "--data", pasted / "images", "--masks", masks)["focus"]
    assert (report["images"], report["annotated"]) == (3, 3)


def test_bad_input(model: str, pasted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, masks = pasted / "images", pasted / "masks"

    def refused(*changes: str | Path, focus: bool = True) -> str:
        return refusal(capsys, "evaluate", model, "--data", str(images), *(["--focus"] if focus else []), *map(str, changes))

    assert "--masks is for measuring the focus only. Add --focus, or leave it out." in refused("--masks", masks, focus=False)
    both = refused("--masks", masks, "--boxes", pasted / "boxes.json")
    assert "The foreground is told by --masks or by --boxes, not by both. Leave one of them out." in both
    assert "--focus measures the central view of an image" in refused("--shifts")
    assert "--focus measures the central view of an image" in refused("--views", "2")
    assert "--focus runs the student alone, without --teacher." in refused("--teacher", "bundled")
    assert "Several numbers of --tokens go with --focus only." in refused("--tokens", "4", "--tokens", "9", focus=False)
    assert "--tokens must be at least 1, not 0." in refused("--tokens", "4", "--tokens", "0")
    assert "There is no boxes file" in refused("--boxes", tmp_path / "none.json")
    assert "does not exist" in refused("--masks", tmp_path / "none")
    mask = next(masks.iterdir())
    Image.new("L", (95, 96)).save(mask)
    said = refused("--masks", masks)
    assert "has 95 x 96 pixels and its image" in said
    assert "Masks have to be as large as their images are; resize them without interpolation." in said
    for path in masks.iterdir():
        Image.new("L", (96, 96)).save(path)
    assert "Nothing of any foreground is in the part of the images that the student sees." in refused("--masks", masks)


def test_a_number_of_tokens_that_it_cannot_have(model: str, pasted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "evaluate", model, "--data", str(pasted / "images"), "--focus", "--tokens", "9")
    assert "has 4 tokens and no other number. Leave out --tokens." in said
