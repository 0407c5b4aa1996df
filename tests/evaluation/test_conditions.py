import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from sparseformers.config import PreprocessingConfig
from sparseformers.data import ImageViews, ViewKey, evaluation_view, from_bytes, read_image
from sparseformers.evaluation.conditions import SIZES, Condition, SmallView, blurred, compressed, shift_conditions
from tests.tiny import write_images

PREPROCESSING = PreprocessingConfig(size=(64, 64))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return write_images(tmp_path / "photos", 4)


@pytest.fixture
def conditions(paths: list[Path]) -> dict[str, Condition]:
    return {condition.name: condition for condition in shift_conditions(PREPROCESSING, paths)}


def shown(paths: list[Path], view: object, *, seed: int = 0, index: int = 0) -> torch.Tensor:
    return from_bytes(ImageViews(paths, view, seed=seed)[ViewKey(0, index)].image)  # type: ignore[arg-type]


def test_the_clean_condition_comes_first_and_is_the_teachers_own_view(paths: list[Path]) -> None:
    first = shift_conditions(PREPROCESSING, paths)[0]
    assert first.name == "clean"
    own = evaluation_view(PREPROCESSING)(read_image(paths[0]))
    assert torch.equal(shown(paths, first.student), own)
    assert first.teacher == first.student


def test_the_teacher_always_sees_its_own_size_and_values_in_range(paths: list[Path], conditions: dict[str, Condition]) -> None:
    for condition in conditions.values():
        teacher, student = shown(paths, condition.teacher), shown(paths, condition.student)
        assert teacher.shape == (3, 64, 64), condition.name
        for image in (teacher, student):
            assert image.dtype == torch.float32
            assert 0 <= image.min() < image.max() <= 1, condition.name


def test_a_condition_is_the_same_every_time_differs_by_image_and_seed_and_leaves_global_random_numbers_alone(
    paths: list[Path], conditions: dict[str, Condition]
) -> None:
    for condition in conditions.values():
        assert torch.equal(shown(paths, condition.student), shown(paths, condition.student)), condition.name
    same = [paths[0], paths[0]]
    for name in ("noise 0.1", "1/3 on grey", "1/2 in a scene"):
        view = conditions[name].student
        first = shown(same, view)
        assert not torch.equal(first, shown(same, view, index=1)), name
        assert not torch.equal(first, shown(same, view, seed=1)), name
    before = torch.get_rng_state()
    shown(paths, conditions["noise 0.25"].student)
    shown(paths, conditions["1/3 in a scene"].student)
    assert torch.equal(torch.get_rng_state(), before)


STRONGER = {"blur 1%": "blur 2%", "noise 0.1": "noise 0.25", "JPEG 30": "JPEG 10"}
STRONGER |= {"brightness 60%": "brightness 30%", "contrast 50%": "contrast 25%", "central 70%": "central 50%"}


def test_the_stronger_condition_is_further_from_the_clean_image(paths: list[Path], conditions: dict[str, Condition]) -> None:
    clean = shown(paths, conditions["clean"].student)
    for pair in STRONGER.items():
        far = [(shown(paths, conditions[name].student) - clean).square().mean().sqrt() for name in pair]
        assert 0.001 < far[0] < far[1], pair
    assert torch.allclose(shown(paths, conditions["brightness 30%"].student), 0.3 * clean, atol=1e-6)
    assert shown(paths, conditions["contrast 25%"].student).std() == pytest.approx(0.25 * clean.std().item(), rel=0.05)


def test_noise_has_its_standard_deviation_and_blur_its_share_of_the_side() -> None:
    middle = Image.new("RGB", (256, 256), (128, 128, 128))
    condition = next(each for each in shift_conditions(PREPROCESSING, []) if each.name == "noise 0.1")
    assert condition.student(middle).std().item() == pytest.approx(0.1, rel=0.05)
    point = torch.zeros(3, 101, 101)
    point[:, 50, 50] = 1
    spread = blurred(point, 0.03)[0]
    assert spread.sum() == pytest.approx(1, abs=1e-4)
    offsets = torch.arange(101) - 50.0
    assert (spread.sum(dim=0) * offsets.square()).sum().sqrt() == pytest.approx(3.03, rel=0.05)


def test_compression_is_that_of_a_jpeg_of_this_quality(tmp_path: Path) -> None:
    photo = write_images(tmp_path, 1)[0]
    image = evaluation_view(PREPROCESSING)(read_image(photo))
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "coded.jpg", quality=10)
    expected = evaluation_view(dataclasses.replace(PREPROCESSING, crop=1.0))(read_image(tmp_path / "coded.jpg"))
    assert torch.equal(compressed(image, 10), expected)


@pytest.mark.parametrize("parts", [2, 3])
def test_a_small_object_lies_in_its_box_which_is_anywhere(paths: list[Path], parts: int) -> None:
    view = SmallView(PREPROCESSING, parts)
    for index in range(len(paths)):
        image = shown(paths, view, seed=5, index=index)
        rows, columns = torch.nonzero((image != 0.5).any(dim=0), as_tuple=True)
        x1, y1, x2, y2 = (side * 64 for side in view.object_box(5, index))
        assert x2 - x1 == y2 - y1 == round(64 / parts)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)
    boxes = torch.tensor([SmallView(PREPROCESSING, 3).object_box(0, index) for index in range(300)])
    assert boxes.min() < 0.03
    assert boxes.max() > 0.97
    assert boxes[:, :2].mean(dim=0).tolist() == pytest.approx([1 / 3, 1 / 3], abs=0.05)


def test_a_scene_is_a_blurred_photograph_around_the_same_object(paths: list[Path], tmp_path: Path) -> None:
    scene, plain = SmallView(PREPROCESSING, 3, tuple(paths)), SmallView(PREPROCESSING, 3)
    assert scene.object_box(0, 0) == plain.object_box(0, 0)
    x1, y1, x2, y2 = (round(side * 64) for side in plain.object_box(0, 0))
    one, other = shown(paths, scene), shown(paths, plain)
    assert torch.equal(one[:, y1:y2, x1:x2], other[:, y1:y2, x1:x2])
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[y1:y2, x1:x2] = False
    assert (one[:, outside] != 0.5).float().mean() > 0.9
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    assert torch.equal(shown(paths, SmallView(PREPROCESSING, 3, (tmp_path / "broken.jpg",))), other)  # it gives way to grey


def test_neither_scenes_without_backgrounds_nor_the_teachers_own_size_twice() -> None:
    names = {condition.name for condition in shift_conditions(PreprocessingConfig(size=(192, 192)), [])}
    assert {name for name in names if name.startswith("1/")} == {"1/2 on grey", "1/3 on grey"}
    assert "192 px" not in names
    assert "160 px" in names


def test_other_sizes_show_what_the_teacher_sees_at_its_own(paths: list[Path], conditions: dict[str, Condition]) -> None:
    for side in SIZES:
        condition = conditions[f"{side} px"]
        assert condition.teacher == conditions["clean"].student
        larger = shown(paths, condition.student)
        assert larger.shape == (3, side, side)
        shrunk = torch.nn.functional.interpolate(larger[None], (64, 64), mode="bilinear", antialias=True)[0]
        assert (shrunk - shown(paths, condition.teacher)).abs().mean() < 0.05


@pytest.mark.parametrize(("name", "ratio"), [("4:3", 4 / 3), ("3:4", 3 / 4)])
def test_other_shapes_have_the_same_area_and_the_teacher_sees_them_squashed(name: str, ratio: float) -> None:
    # A white disc in the middle, that stays a disc for the student and becomes an ellipse for the teacher.
    photo = Image.new("RGB", (400, 300))
    ImageDraw.Draw(photo).ellipse((110, 60, 289, 239), fill="white")
    condition = next(each for each in shift_conditions(PREPROCESSING, []) if each.name == name)
    student, teacher = condition.student(photo)[0] > 0.5, condition.teacher(photo)[0] > 0.5
    height, width = student.shape
    assert width / height == pytest.approx(ratio, rel=0.03)
    assert width * height == pytest.approx(64 * 64, rel=0.03)
    for seen, expected in ((student, 1.0), (teacher, 1 / ratio)):
        across, down = seen.any(dim=0).sum().item(), seen.any(dim=1).sum().item()
        assert across / down == pytest.approx(expected, rel=0.06)
