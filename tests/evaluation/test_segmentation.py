from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data import SkippedImages
from sparseformers.errors import DataError
from sparseformers.evaluation.segmentation import IGNORED, ClassMasks, Segmentation, linear_head, mean_iou
from tests.refusals import refused

SEEN = PreprocessingConfig(size=(32, 32), crop=1.0)


def write(folder: Path, masks: dict[str, np.ndarray]) -> tuple[list[Path], ClassMasks]:
    """Grey images with these masks."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for name, values in masks.items():
        Image.new("RGB", values.shape[1::-1], "grey").save(folder / "images" / f"{name}.png")
        Image.fromarray(values).save(folder / "masks" / f"{name}.png")
    paths = sorted((folder / "images").iterdir())
    return paths, ClassMasks(paths, folder / "images", folder / "masks")


def halves(left: int, right: int) -> np.ndarray:
    values = np.full((64, 64), left, np.uint8)
    values[:, 32:] = right
    return values


def test_classes__are_those_in_the_middle_of_each_place_and_are_never_blended(tmp_path: Path) -> None:
    _, masks = write(tmp_path, {"a": halves(3, 200), "b": halves(0, IGNORED)})
    assert masks.classes(0, SEEN, (2, 4)).tolist() == [[3, 3, 200, 200]] * 2
    assert masks.classes(1, SEEN, (1, 2)).tolist() == [[0, IGNORED]]
    Image.fromarray(halves(1, 2), mode="L").convert("P").save(tmp_path / "masks" / "a.png")
    assert set(masks.classes(0, SEEN, (4, 4)).flatten().tolist()) == {1, 2}
    (tmp_path / "masks" / "a.png").unlink()
    for mode, value in (("RGB", 0), ("F", 0.5), ("I", -1)):
        Image.new(mode, (64, 64), value).save(tmp_path / "masks" / "a.tif")
        with refused(DataError, "a.tif' cannot be read: a mask of classes has one whole number"):
            ClassMasks(masks.paths[:1], tmp_path / "images", tmp_path / "masks")
    with refused(DataError, "a.tif' is a file, and no folder of masks"):
        ClassMasks(masks.paths[:1], tmp_path / "images", tmp_path / "masks" / "a.tif")


def features(classes: Tensor, noise: float) -> Tensor:
    """Maps B x 8 x h x w whose places tell their classes, but for noise."""
    directions = torch.eye(8)
    return directions[classes].permute(0, 3, 1, 2) + noise * torch.randn(len(classes), 8, *classes.shape[1:])


def test_segmentation__is_learnt_on_the_teachers_maps_and_judges_others(tmp_path: Path) -> None:
    paths, masks = write(tmp_path, {f"{number:02}": halves(number // 2 % 3, 3 + number // 2 % 2) for number in range(12)})
    segmentation = Segmentation(masks, (4, 4), SEEN)
    for start in (0, 6):
        indices = list(range(start, start + 6))
        classes = torch.stack([masks.classes(index, SEEN, (4, 4)) for index in indices])
        maps = {"teacher": features(classes, 0.1), "student": features(classes, 0.6), "noise": features(0 * classes, 1.0)}
        segmentation.add(indices, maps)
    figures = segmentation.judge(SkippedImages())
    assert segmentation.annotated == len(paths)
    assert min(figures["teacher"].linear, figures["teacher"].nearest) > 0.95
    assert 0.3 < figures["student"].linear < figures["teacher"].linear
    assert max(figures["noise"].linear, figures["noise"].nearest) < 0.3


def test_segmentation__of_too_few_or_silent_masks_is_refused(tmp_path: Path) -> None:
    _, masks = write(tmp_path, {f"{number}": halves(IGNORED, IGNORED) for number in range(5)})
    for count, problem in ((3, "3 masks are too few"), (5, "The masks say nothing")):
        segmentation = Segmentation(masks, (2, 2), SEEN)
        segmentation.add(range(count), {"teacher": torch.randn(count, 4, 2, 2)})
        with refused(DataError, problem):
            segmentation.judge(SkippedImages())
    (tmp_path / "masks" / "0.png").write_bytes(b"nothing")
    segmentation.add([0], {"teacher": torch.randn(1, 4, 2, 2)})
    skipped = SkippedImages()
    with pytest.raises(DataError):
        segmentation.judge(skipped)
    assert len(skipped) == 1


def test_mean_iou__over_the_classes_that_are_wanted__and_a_head_by_its_rows_alone() -> None:
    wanted = torch.tensor([0, 0, 1, 1, IGNORED])
    assert mean_iou(wanted, wanted) == 1
    assert mean_iou(torch.tensor([0, 1, 1, 1, 7]), wanted) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert mean_iou(torch.tensor([5, 5, 1, 1, 1]), wanted) == pytest.approx(1 / 2)
    classes = torch.randint(3, (50,))
    rows = torch.cat([torch.eye(3)[classes], 1000 * torch.randn(50, 1)], dim=1)  # one loud channel that tells nothing
    (weight, bias), (again, _) = linear_head(rows, classes), linear_head(rows, classes)
    assert torch.equal((rows @ weight.T + bias).argmax(dim=1), classes)
    assert torch.equal(again, weight)
