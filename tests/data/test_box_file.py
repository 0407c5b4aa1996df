from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparseformers.data.foregrounds import BoxedImage, read_boxes
from sparseformers.errors import DataError

GOOD: dict[str, Any] = {
    "images": [
        {"id": 3, "file_name": "cats\\a.jpg", "width": 100, "height": 80},
        {"id": "x", "file_name": "./b.jpg"},
        {"id": 5, "file_name": "c.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 3, "bbox": [1, 2.5, 30, 40], "category_id": 1},
        {"id": 2, "image_id": "x", "bbox": [0, 0, 0, 0]},
        {"id": 3, "image_id": 3, "bbox": [-5, 0, 10, 10]},
    ],
}


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_boxes_by_the_name_of_the_image(tmp_path: Path) -> None:
    assert read_boxes(written(tmp_path / "boxes.json", GOOD)) == {
        "cats/a.jpg": BoxedImage((100, 80), ((1, 2.5, 30, 40), (-5, 0, 10, 10))),
        "b.jpg": BoxedImage(None, ((0, 0, 0, 0),)),
        "c.jpg": BoxedImage(None, ()),
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "does not hold a JSON object"),
        ({"images": []}, "has no list of annotations"),
        ({"images": {}, "annotations": []}, "has no list of images"),
        ({"images": [{"id": 1}], "annotations": []}, "Entry 0 of the images in"),
        ({"images": [{"file_name": "a.jpg"}], "annotations": []}, "has no file_name or no id"),
        ({"images": [GOOD["images"][2]] * 2, "annotations": []}, "Two images in .* have the id 5"),
        (
            GOOD | {"annotations": [{"image_id": 9, "bbox": [0, 0, 1, 1]}]},
            "Annotation 0 in .* is of an image 9 that is not listed",
        ),
        (GOOD | {"annotations": [{"image_id": [3], "bbox": [0, 0, 1, 1]}]}, "that is not listed"),
        (GOOD | {"annotations": [{"image_id": 3}]}, "Annotation 0 in .* has no box of four numbers"),
        (GOOD | {"annotations": [{"image_id": 3, "bbox": [0, 0, 1]}]}, "has no box of four numbers"),
        (GOOD | {"annotations": [{"image_id": 3, "bbox": [0, 0, -1, 4]}]}, "has no box of four numbers"),
        (GOOD | {"annotations": [{"image_id": 3, "bbox": [0, 0, "1", 4]}]}, "has no box of four numbers"),
        (GOOD | {"annotations": [{"image_id": 3, "bbox": [0, 0, float("nan"), 4]}]}, "has no box of four numbers"),
    ],
)
def test_another_form(tmp_path: Path, content: object, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_boxes(written(tmp_path / "boxes.json", content))


def test_no_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no boxes file .* Check the path after --boxes\."):
        read_boxes(tmp_path / "boxes.json")
    (tmp_path / "boxes.json").write_bytes(b"\xff\x00{")
    with pytest.raises(DataError, match="is not JSON"):
        read_boxes(tmp_path / "boxes.json")
