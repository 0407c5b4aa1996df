from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from examples.pasted_objects import Settings
from examples.pasted_objects import main as paste
from tests.cli.command import Command, save_student
from tests.tiny import write_images


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save_student(tmp_path, front="focusing", focusing_width=64)


@pytest.fixture
def pasted(tmp_path: Path) -> Path:
    """Three pictures with objects of known places, made by the example."""
    write_images(tmp_path / "photos", 2)
    paste(Settings(out=tmp_path / "pasted", objects=tmp_path / "photos", backgrounds=tmp_path / "photos", count=3, side=96))
    return tmp_path / "pasted"


def focus_of(command: Command, model: str, pasted: Path, *options: object) -> Any:
    """The report of the only number of tokens."""
    (report,) = command.json("evaluate", model, "--data", pasted / "images", "--focus", "--precision", "fp32", *options)["focus"]
    return report


def test_focus__needs_no_teacher(model: str, pasted: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "teacher.safetensors").unlink()
    report = focus_of(command, model, pasted)
    assert (report["images"], report["tokens"], len(report["stages"])) == (3, 4, 5)
    assert report["area"] is None
    assert report["stages"][0]["moved"] is None
    assert report["stages"][1]["moved"]["mean"] >= 0


def test_focus__masks_and_boxes_of_the_same_objects(model: str, pasted: Path, command: Command) -> None:
    by_masks = focus_of(command, model, pasted, "--masks", pasted / "masks")
    assert by_masks["annotated"] == 3
    assert 0.02 < by_masks["area"]["mean"] < 0.3
    assert by_masks["stages"][-1]["foreground"]["ratio"]["mean"] > 0
    by_boxes = focus_of(command, model, pasted, "--boxes", pasted / "boxes.json")
    # A box around an ellipse is larger than it, by 4 / pi.
    assert by_boxes["area"]["mean"] / by_masks["area"]["mean"] == pytest.approx(4 / 3.14159, abs=0.12)
    # Masks beside the images are no images.
    masks = (pasted / "masks").rename(pasted / "images" / "masks")
    assert focus_of(command, model, pasted, "--masks", masks) == by_masks


def test_focus__of_leaves_that_tile_the_image(tmp_path: Path, pasted: Path, command: Command) -> None:
    report = focus_of(command, save_student(tmp_path, front="mixed", tokens=7), pasted, "--masks", pasted / "masks")
    first, *_, last = report["stages"]
    assert (report["tokens"], report["annotated"]) == (7, 3)
    assert (last["rois_cover"]["mean"], last["overlap"]["mean"]) == (1, 0)
    assert first["overlap"]["mean"] > 0  # seven leaves of four cells
    assert (first["foreground"], first["points_cover"]) == (None, None)
    # A new student splits the first cell of every image, so what falls on the object is what falls on others'.
    foreground = last["foreground"]
    assert 0 < foreground["points"]["mean"] < 1
    assert foreground["elsewhere"] == pytest.approx(foreground["points"]["mean"], abs=0.1)


def test_focus__is_refused_where_rois_cannot_move(tmp_path: Path, pasted: Path, command: Command) -> None:
    said = command.refused("evaluate", save_student(tmp_path, front="grid"), "--data", pasted / "images", "--focus")
    assert "are the cells of a grid and do not move, so there is no focus to measure." in said
    assert "Give a student with the front mixed or focusing, or leave out --focus." in said


def test_focus__names_what_was_left_out(model: str, pasted: Path, command: Command) -> None:
    first, second, _ = sorted((pasted / "masks").iterdir())
    first.unlink()
    second.write_bytes(b"nothing")
    (pasted / "images" / "broken.png").write_bytes(b"nothing")
    options = ["--focus", "--masks", pasted / "masks", "--precision", "fp32"]
    printed = command("evaluate", model, "--data", pasted / "images", *options)
    assert "…" not in printed
    parts = ["3 images, 1 unreadable skipped", "2 without annotation: ", f"{first.stem}.jpg", "stage 1"]
    for part in (*parts, "broken.png not an image", f"{second} not an image"):
        assert part in printed, part


def test_bad_input(model: str, pasted: Path, tmp_path: Path, command: Command) -> None:
    masks, boxes = pasted / "masks", pasted / "boxes.json"

    def refused(*changes: object) -> str:
        return command.refused("evaluate", model, "--data", pasted / "images", *changes)

    assert "--masks is for measuring the focus or maps only. Add --focus or --dense, or leave it out." in refused(
        "--masks", masks
    )
    both = refused("--focus", "--masks", masks, "--boxes", boxes)
    assert "The foreground is told by --masks or by --boxes, not by both. Leave one of them out." in both
    assert "--focus measures the central view of an image" in refused("--focus", "--shifts")
    assert "--focus measures the central view of an image" in refused("--focus", "--views", 2)
    assert "--focus runs the student alone, without --teacher." in refused("--focus", "--teacher", "bundled")
    assert "Several numbers of --tokens go with --focus only." in refused("--tokens", 4, "--tokens", 9)
    assert "--tokens must be at least 1, not 0." in refused("--focus", "--tokens", 4, "--tokens", 0)
    said = refused("--focus", "--tokens", 9)
    assert "cannot have 9 tokens: this front has 4 tokens and no other number, not 9. Leave out --tokens." in said
    assert "There is no boxes file" in refused("--focus", "--boxes", tmp_path / "none.json")
    assert "does not exist" in refused("--focus", "--masks", tmp_path / "none")
    mask = next(masks.iterdir())
    Image.new("L", (95, 96)).save(mask)
    said = refused("--focus", "--masks", masks)
    assert "has 95 x 96 pixels and its image" in said
    assert "Masks have to be as large as their images are; resize them without interpolation." in said
    for path in masks.iterdir():
        Image.new("L", (96, 96)).save(path)
    assert "Nothing of any foreground is in the part of the images that the student sees." in refused("--focus", "--masks", masks)
