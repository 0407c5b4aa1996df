import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sparseformers.config import PreprocessingConfig
from sparseformers.data import UnreadableImageError, evaluation_view, find_images, read_image
from sparseformers.data.foregrounds import BoxedImage, BoxFile, MaskFolder, read_boxes
from sparseformers.data.images import upright_size
from sparseformers.errors import DataError
from tests.refusals import refused

WIDTH, HEIGHT = 60, 40
VIEW = PreprocessingConfig(size=(32, 32), crop=0.875)


def photograph(path: Path, *, size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, "grey").save(path, exif=exif)
    return path


def left_half(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    mask = Image.new("L", (width, height), 0)
    mask.paste(1, (0, 0, width // 2, height))  # not zero, and hardly visible
    return mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photograph(tmp_path / "photos" / "cats" / "a.jpg")
    photograph(tmp_path / "photos" / "b.png")
    (tmp_path / "masks" / "cats").mkdir(parents=True)
    left_half().save(tmp_path / "masks" / "cats" / "a.png")
    return tmp_path


def masks_of(folder: Path) -> MaskFolder:
    data = folder / "photos"
    return MaskFolder(find_images([data]), data, folder / "masks")


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def boxes_of(folder: Path, content: object) -> BoxFile:
    data = folder / "photos"
    return BoxFile(find_images([data]), data, written(folder / "boxes.json", content))


def coco(name: str, *boxes: list[float], **size: int) -> dict[str, list[dict[str, object]]]:
    annotations: list[dict[str, object]] = [{"image_id": 1, "bbox": box} for box in boxes]
    return {"images": [{"id": 1, "file_name": name} | size], "annotations": annotations}


class TestMaskFolder:
    def test_masks_are_found_by_the_images_names_also_of_a_single_one(self, folder: Path) -> None:
        masks = masks_of(folder)
        assert [path.name for path in masks.paths] == ["b.png", "a.jpg"]
        assert masks.known == (False, True)
        assert np.array_equal(np.unique(np.asarray(masks.mask(1))), [0, 255])
        assert masks.seen(0, VIEW) is None
        data = folder / "photos" / "cats" / "a.jpg"
        assert MaskFolder([data], data, folder / "masks" / "cats").known == (True,)

    def test_what_is_not_zero_is_foreground_in_any_mode(self, folder: Path) -> None:
        path = folder / "masks" / "cats" / "a.png"
        expected = np.asarray(left_half()) * 255
        indexed = left_half().convert("P")
        indexed.putpalette([0, 0, 0] * 256)  # every index black, as some tools write it
        cut_out = Image.new("RGBA", (WIDTH, HEIGHT), (9, 0, 0, 0))
        cut_out.paste((0, 0, 9, 255), (0, 0, WIDTH // 2, HEIGHT))
        sixteen = Image.fromarray(np.asarray(left_half()).astype(np.uint16))
        one_bit, coloured = left_half().point([0, 255] * 128).convert("1"), left_half().convert("RGB")
        for mask in (left_half(), one_bit, coloured, indexed, cut_out, sixteen):
            mask.save(path)
            assert np.array_equal(np.asarray(masks_of(folder).mask(1)), expected), mask.mode
        path.unlink()  # A JPEG's noise is no foreground.
        left_half().point([0] + [255] * 255).save(folder / "masks" / "cats" / "a.jpg", quality=30)
        solid = np.asarray(masks_of(folder).mask(1)) > 0
        assert solid.mean() == pytest.approx(0.5, abs=0.02)

    def test_the_mask_goes_through_the_view_of_the_image(self, folder: Path) -> None:
        # White where the mask is: the network's view of the photograph is then the view of the mask.
        mask = Image.new("L", (WIDTH, HEIGHT), 0)
        mask.paste(255, (20, 5, 37, 22))
        mask.save(folder / "masks" / "cats" / "a.png")
        mask.convert("RGB").save(folder / "photos" / "cats" / "a.jpg", quality=100)
        masks = masks_of(folder)
        for preprocessing in (VIEW, PreprocessingConfig(size=(48, 32)), PreprocessingConfig(size=(24, 24), resize="squash")):
            seen = masks.seen(1, preprocessing)
            assert seen.shape == preprocessing.size
            assert seen.min() >= 0
            assert seen.max() <= 1
            shown = evaluation_view(preprocessing)(read_image(masks.paths[1])).mean(dim=0)
            assert (seen - shown).abs().max() < 0.3  # another filter
            assert (seen - shown).abs().mean() < 0.02

    def test_a_mask_lies_on_the_upright_image_and_those_of_another_size_are_named(self, folder: Path) -> None:
        photograph(folder / "photos" / "cats" / "a.jpg", size=(HEIGHT, WIDTH), orientation=6)
        assert upright_size(folder / "photos" / "cats" / "a.jpg") == (WIDTH, HEIGHT)
        assert masks_of(folder).mask(1).size == (WIDTH, HEIGHT)
        left_half(WIDTH, HEIGHT - 1).save(folder / "masks" / "cats" / "a.png")
        left_half(9, 9).save(folder / "masks" / "b.png")
        image = folder / "photos" / "b.png"
        problem = f"b.png' has 9 x 9 pixels and its image '{image}' 60 x 40, and 1 more are of another size"
        with refused(DataError, problem, "Masks have to be as large as their images are"):
            masks_of(folder)

    def test_a_mask_that_is_none_and_wrong_folders(self, folder: Path) -> None:
        (folder / "masks" / "cats" / "a.png").write_bytes(b"nothing")
        with pytest.raises(UnreadableImageError, match="not an image"):
            masks_of(folder).seen(1, VIEW)
        left_half().save(folder / "masks" / "cats" / "a.bmp")
        with pytest.raises(DataError, match="two masks of the same image"):
            masks_of(folder)
        data = folder / "photos"
        with pytest.raises(DataError, match="does not exist"):
            MaskFolder(find_images([data]), data, folder / "mask")
        (folder / "empty").mkdir()
        with pytest.raises(DataError, match=r"None of the 2 images .* has a mask .* such as b\.png"):
            MaskFolder(find_images([data]), data, folder / "empty")


class TestBoxFile:
    def test_what_lies_in_any_box_is_foreground(self, folder: Path) -> None:
        boxes = boxes_of(folder, coco("cats/a.jpg", [10, 5, 20, 10], [50, 30, 100, 100], [0, 0, 0, 5], width=60, height=40))
        assert boxes.known == (False, True)
        expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        expected[5:15, 10:30] = 255
        expected[30:, 50:] = 255
        assert np.array_equal(np.asarray(boxes.mask(1)), expected)

    def test_boxes_go_through_the_view(self, folder: Path) -> None:
        squashed, cropped = PreprocessingConfig(size=(20, 20), crop=1.0, resize="squash"), PreprocessingConfig(size=(32, 32))
        for box, view, share in (
            ([0, 0, 30, 20], squashed, 0.25),  # all of the image is seen: the box keeps its share
            ([31, 21, 2, 2], squashed, 4 / (WIDTH * HEIGHT)),  # a small object is as large in the view as it is
            ([0, 0, 5, 40], cropped, 0.0),  # a central crop of a wide image shows nothing of its left end
        ):
            seen = boxes_of(folder, coco("b.png", box)).seen(0, view)
            assert seen.mean() == pytest.approx(share, rel=0.04)
            assert share != 0.25 or (seen[:10, :10] > 0.5).sum() == (seen > 0.5).sum() == 100

    def test_files_that_lay_elsewhere_are_found_by_their_last_names_and_other_sizes_are_told(self, folder: Path) -> None:
        assert boxes_of(folder, coco("train2017/a.jpg", [0, 0, 5, 5])).known == (False, True)
        photograph(folder / "photos" / "dogs" / "a.jpg")  # now it could be either
        with pytest.raises(DataError, match="has no boxes of any of the 3 images"):
            boxes_of(folder, coco("train2017/a.jpg", [0, 0, 5, 5]))

        with pytest.raises(DataError, match=r"images of another size: .*b\.png' has 60 x 40 pixels and not 30 x 20"):
            boxes_of(folder, coco("b.png", [0, 0, 5, 5], width=30, height=20))


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


def test_boxes_by_the_name_of_the_image(tmp_path: Path) -> None:
    assert read_boxes(written(tmp_path / "boxes.json", GOOD)) == {
        "cats/a.jpg": BoxedImage((100, 80), ((1, 2.5, 30, 40), (-5, 0, 10, 10))),
        "b.jpg": BoxedImage(None, ((0, 0, 0, 0),)),
        "c.jpg": BoxedImage(None, ()),
    }


def annotated(image: object, box: list[Any]) -> dict[str, Any]:
    return GOOD | {"annotations": [{"image_id": image, "bbox": box}]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "has no list of images"),
        ({"images": []}, "has no list of annotations"),
        ({"images": {}, "annotations": []}, "has no list of images"),
        ({"images": [{"id": 1}], "annotations": []}, "Entry 0 of the images in"),
        ({"images": [{"file_name": "a.jpg"}], "annotations": []}, "has no file_name or no id"),
        ({"images": [GOOD["images"][2]] * 2, "annotations": []}, "Two images in .* have the id 5"),
        (annotated(9, [0, 0, 1, 1]), "Annotation 0 in .* is of an image 9 that is not listed"),
        (annotated([3], [0, 0, 1, 1]), "that is not listed"),
        (GOOD | {"annotations": [{"image_id": 3}]}, "Annotation 0 in .* has no box of four numbers"),
        *((annotated(3, [0, 0, *rest]), "has no box of four numbers") for rest in ([1], [-1, 4], ["1", 4], [math.nan, 4])),
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
