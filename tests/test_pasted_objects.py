"""The example that makes photographs with known foregrounds."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.pasted_objects import FILLING, Settings, cut_out, main
from sparseformers.errors import ConfigError


@pytest.fixture
def colours(tmp_path: Path) -> tuple[Path, Path]:
    """Folders with a white object and with black backgrounds."""
    for name, colour in (("objects", "white"), ("backgrounds", "black")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (80, 60), colour).save(tmp_path / name / f"{colour}.png")
    return tmp_path / "objects", tmp_path / "backgrounds"


def made(out: Path, colours: tuple[Path, Path], **options: object) -> list[str]:
    objects, backgrounds = colours
    main(Settings(**{"out": out, "objects": objects, "backgrounds": backgrounds, "count": 5, "side": 64} | options))  # type: ignore[arg-type]
    return sorted(path.stem for path in (out / "images").iterdir())


def test_masks_and_boxes_are_where_the_object_is(tmp_path: Path, colours: tuple[Path, Path]) -> None:
    out = tmp_path / "out"
    names = made(out, colours)
    assert len(names) == 5
    content = json.loads((out / "boxes.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [f"{name}.jpg" for name in names]
    for name, annotation in zip(names, content["annotations"], strict=True):
        picture = np.asarray(Image.open(out / "images" / f"{name}.jpg").convert("L")).astype(int)
        mask = np.asarray(Image.open(out / "masks" / f"{name}.png"))
        assert picture.shape == mask.shape == (64, 64)
        assert set(np.unique(mask)) == {0, 255}
        assert ((picture > 127) != (mask > 0)).mean() < 0.01  # but for what JPEG does at the border
        rows, columns = np.nonzero(mask)
        x, y, width, height = annotation["bbox"]
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
        assert annotation["area"] == (mask > 0).sum()


def test_masks_of_classes_have_the_number_of_the_objects_folder(tmp_path: Path, colours: tuple[Path, Path]) -> None:
    for name in ("cat", "dog"):
        (colours[0] / name).mkdir()
        Image.new("RGB", (80, 60), "white").save(colours[0] / name / f"{name}.png")
    (colours[0] / "white.png").unlink()
    names = made(tmp_path / "out", colours, count=8)
    for name in names:
        classes, mask = (np.asarray(Image.open(tmp_path / "out" / kind / f"{name}.png")) for kind in ("classes", "masks"))
        assert set(np.unique(classes)) == {0, 1 if name.endswith("cat") else 2}
        assert np.array_equal(classes > 0, mask > 0)
    categories = json.loads((tmp_path / "out" / "boxes.json").read_text())["categories"]
    assert categories == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def test_the_same_seed_makes_the_same_pictures(tmp_path: Path, colours: tuple[Path, Path]) -> None:
    for out, seed in (("one", 0), ("two", 0), ("other", 1)):
        made(tmp_path / out, colours, seed=seed)

    def contents(out: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted((tmp_path / out).rglob("*.*"))]

    assert contents("one") == contents("two")
    assert contents("one") != contents("other")


def test_an_object_fades_out_at_its_border() -> None:
    shown, opacity = cut_out(Image.new("RGB", (100, 50)), FILLING, longest=96)
    assert shown.size == opacity.size == (96, 48)
    solid = np.asarray(opacity)
    assert solid[24, 48] == 255
    assert solid[0].max() < 128
    assert np.all(np.diff(solid[24, 48:].astype(int)) <= 0)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("skimage", "sklearn"))), reason="the packages with the photographs are not installed"
)
def test_of_the_photographs_of_installed_packages(tmp_path: Path) -> None:
    main(Settings(out=tmp_path / "out", count=4, side=48))
    for mask in (tmp_path / "out" / "masks").iterdir():
        assert 0.005 < (np.asarray(Image.open(mask)) > 0).mean() < 0.25


def test_wrong_settings(tmp_path: Path) -> None:
    for options, problem in (
        ({"share": (0.5, 0.2)}, "--share 0.5 0.2 is no range in"),
        ({"count": 0}, "There cannot be 0 pictures of 224 pixels"),
        ({"out": Path()}, r"The folder \. exists"),
    ):
        with pytest.raises(ConfigError, match=problem):
            Settings(**{"out": tmp_path / "out"} | options)  # type: ignore[arg-type]
