import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparseformers.config import GridConfig
from sparseformers.data import ImageViews, ViewKey, evaluation_view, from_bytes, read_image
from sparseformers.errors import DataError
from sparseformers.evaluation.conditions import Condition, SmallView, shift_conditions
from sparseformers.evaluation.rebuilt import LowResolutionTeacher
from sparseformers.evaluation.shifts import ShiftReport, ShiftRow, measure_shifts
from sparseformers.inheritance import inherit
from sparseformers.model import SparseFormer
from sparseformers.settings import from_dict
from sparseformers.teachers import Teacher, load_teacher
from tests.evaluation.printed import printed
from tests.evaluation.students import Mover, original
from tests.refusals import refused
from tests.tiny import SIDE, write_images, write_teacher


class Setting:
    """A teacher, an untrained student of it, six photographs, and the conditions that they are shown in."""

    def __init__(self, teacher: Teacher, photographs: Path) -> None:
        self.teacher, self.low_resolution = teacher, LowResolutionTeacher(teacher, 4)
        self.student: nn.Module = grid(teacher)
        self.paths = write_images(photographs, 6)
        self.conditions = shift_conditions(self.teacher.preprocessing, self.paths)

    def named(self, *names: str) -> list[Condition]:
        return [condition for condition in self.conditions if condition.name in names]

    def measured(self, *names: str, **options: Any) -> ShiftReport:
        """In the conditions of these names, or in all."""
        conditions = self.named(*names) if names else self.conditions
        return measure_shifts(self.student, self.teacher, self.paths, conditions, device="cpu", autocast=None, **options)

    def moved(self, *names: str, first: Tensor, last: Tensor, **options: Any) -> dict[str, ShiftRow]:
        """The same of a perfect student, by condition, whose RoIs go from the first ones to the last ones."""
        self.student = Mover(self.teacher, first, last)
        return rows_of(self.measured(*names, **options))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return load_teacher(write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors"), image_size=SIDE)


@pytest.fixture
def setting(teacher: Teacher, tmp_path: Path) -> Setting:
    return Setting(teacher, tmp_path)


def rows_of(report: ShiftReport) -> dict[str, ShiftRow]:
    return {row.condition: row for row in report.rows}


BOX = torch.tensor([[0.2, 0.2, 0.4, 0.6]])


def grid(teacher: Teacher) -> SparseFormer:
    return inherit(teacher, front="grid", tokens=4).student


def focusing(teacher: Teacher) -> SparseFormer:
    return inherit(teacher, front="focusing", tokens=4, channels=8, points=4, focusing_width=64).student


@pytest.mark.parametrize("make", [grid, focusing, original])
def test_every_kind_of_student_is_measured_in_every_condition(setting: Setting, make: Callable[[Teacher], SparseFormer]) -> None:
    setting.student, setting.paths = make(setting.teacher), setting.paths[:2]
    report = setting.measured(low_resolution=setting.low_resolution)
    assert {row.condition for row in report.rows} == {condition.name for condition in setting.conditions}
    for row in report.rows:
        for figures in (row.student, row.teacher, row.low_resolution):
            assert -1 <= figures.same_image <= 1 + 1e-6
            assert -1 <= figures.clean_image <= 1 + 1e-6
            assert figures.top1 is None
        assert (row.rois is None) == isinstance(setting.student.config.focusing, GridConfig)
        if row.rois is not None:
            assert row.rois.size_ratio > 0
            assert (row.rois.on_object_last is None) == (not row.condition.startswith("1/"))
    assert (report.images, report.skipped) == (2, 0)


def test_the_clean_condition_comes_first_then_those_with_the_greatest_loss(setting: Setting) -> None:
    report = setting.measured(*(condition.name for condition in setting.conditions[:6]))
    assert report.rows[0].condition == "clean"
    assert report.rows[0].loss == 0
    losses = [row.loss for row in report.rows[1:]]
    assert losses == sorted(losses, reverse=True)
    for row in report.rows:
        assert row.loss == pytest.approx(report.rows[0].student.same_image - row.student.same_image)
        assert row.low_resolution is None


def test_an_untrained_inherited_student_is_its_low_resolution_teacher(setting: Setting) -> None:
    for row in setting.measured("clean", "noise 0.1", "160 px", "4:3", low_resolution=setting.low_resolution).rows:
        assert row.student.same_image == pytest.approx(row.low_resolution.same_image, abs=0.02)
        assert row.student.clean_image == pytest.approx(row.low_resolution.clean_image, abs=0.02)
        assert row.rois is None


def test_a_perfect_student_loses_nothing_where_it_sees_what_the_teacher_sees(setting: Setting) -> None:
    rows = setting.moved("clean", "noise 0.25", "448 px", "4:3", first=BOX, last=BOX, labels=[0, 1, 2, 0, 1, 2])
    changed = rows["noise 0.25"]
    assert changed.student.same_image == pytest.approx(1, abs=1e-5)
    # It follows the teacher astray, too.
    assert changed.student.clean_image == pytest.approx(changed.teacher.clean_image, abs=1e-5)
    assert changed.teacher.clean_image < 0.99
    assert changed.student.top1 == changed.teacher.top1
    # A larger image is compared with the teacher's answer to the clean one, a squashed one with that to the squashed one.
    assert rows["448 px"].teacher.clean_image == pytest.approx(1, abs=1e-5)
    assert rows["448 px"].student.same_image == pytest.approx(rows["448 px"].student.clean_image)
    assert rows["4:3"].teacher.clean_image < 0.999
    assert rows["4:3"].student.same_image > rows["4:3"].student.clean_image


def test_figures_are_those_of_the_embeddings_by_hand(setting: Setting) -> None:
    clean, noisy = setting.named("clean", "noise 0.25")

    def answers(network: nn.Module, condition: Condition) -> Tensor:
        views = ImageViews(setting.paths, condition.student, seed=3)
        with torch.no_grad():
            embedding: Tensor = network(from_bytes(torch.stack([views[ViewKey(0, i)].image for i in range(6)]))).embedding
        return embedding

    setting.student.eval()
    told, target, own = answers(setting.student, noisy), answers(setting.teacher, noisy), answers(setting.teacher, clean)
    row = rows_of(setting.measured("clean", "noise 0.25", seed=3))["noise 0.25"]

    def cosine(one: Tensor, other: Tensor) -> float:
        mean = other.mean(dim=0)
        return nn.functional.cosine_similarity(one - mean, other - mean).mean().item()

    assert row.student.same_image == pytest.approx(cosine(told, target), abs=1e-5)
    assert row.student.clean_image == pytest.approx(cosine(told, own), abs=1e-5)
    assert row.teacher.clean_image == pytest.approx(cosine(target, own), abs=1e-5)


def test_top1_counts_the_right_outputs(setting: Setting) -> None:
    images = torch.stack([evaluation_view(setting.teacher.preprocessing)(read_image(path)) for path in setting.paths])
    with torch.no_grad():
        outputs = setting.teacher(images).logits.argmax(dim=1).tolist()
    labels = [outputs[0], outputs[1], outputs[2], *((output + 1) % 3 for output in outputs[3:])]
    clean = setting.moved("clean", first=BOX, last=BOX, labels=labels)["clean"]
    assert clean.student.top1 == clean.teacher.top1 == 0.5


def test_movement_and_size_of_rois_by_hand(setting: Setting) -> None:
    first = torch.tensor([[0.0, 0.0, 0.2, 0.4], [0.5, 0.5, 0.7, 0.7]])
    # Moved by (0.3, 0.4) of its size and twice as wide, half as high; and not moved, a third of its size.
    last = torch.tensor([[-0.04, 0.26, 0.36, 0.46], [0.5666667, 0.5666667, 0.6333333, 0.6333333]])
    row = setting.moved("clean", first=first, last=last)["clean"]
    assert row.rois.movement == pytest.approx(0.25)
    assert row.rois.size_ratio == pytest.approx((1 + 1 / 3) / 2, abs=1e-4)


def test_rois_on_a_small_object_are_counted(setting: Setting) -> None:
    view, seed = SmallView(setting.teacher.preprocessing, 2), 7
    setting.conditions = [*setting.named("clean"), Condition.of_both("s", view)]
    x1, y1, x2, y2 = view.object_box(seed, 0)
    assert view.object_box(seed, 1) != (x1, y1, x2, y2)
    corner = torch.tensor([[-0.1, -0.1, 0.1, 0.1], [0.9, 0.9, 1.1, 1.1]])  # centres at corners of the image
    middle = torch.tensor([[x1, y1, x2, y2], [0.9, 0.9, 1.1, 1.1]])
    rows = setting.moved(first=corner, last=middle, seed=seed)
    inside = [
        (box[0] <= (x1 + x2) / 2 <= box[2]) and (box[1] <= (y1 + y2) / 2 <= box[3])
        for box in (view.object_box(seed, index) for index in range(6))
    ]
    assert rows["s"].rois.on_object_first == 0
    assert rows["s"].rois.on_object_last == pytest.approx(sum(inside) / 6 / 2)
    assert rows["clean"].rois.on_object_first is None


def test_the_worst_images_are_named(setting: Setting) -> None:
    report = setting.measured("clean", worst=6)
    cosines = sorted(image.cosine for image in report.worst)
    assert [image.cosine for image in report.worst] == cosines
    assert {image.path for image in report.worst} == {str(path) for path in setting.paths}
    assert sum(cosines) / 6 == pytest.approx(report.rows[0].student.same_image, abs=1e-5)
    assert len(setting.measured("clean", worst=2).worst) == 2


def test_the_same_again_and_in_other_batches_and_networks_come_back_in_their_mode(setting: Setting) -> None:
    names = ("clean", "noise 0.25", "1/3 in a scene")
    first = setting.measured(*names)
    setting.student.train()
    assert setting.measured(*names) == first
    assert setting.student.training
    for one, two in zip(first.rows, setting.measured(*names, batch_size=4).rows, strict=True):
        assert one.student.same_image == pytest.approx(two.student.same_image, abs=1e-5)
    assert setting.measured(*names, seed=1).rows[1:] != first.rows[1:]


def test_unreadable_images_are_told_of_and_left_out(setting: Setting) -> None:
    setting.paths[2].write_bytes(b"nothing")
    told: dict[int, str] = {}
    report = setting.measured("clean", "1/2 on grey", "448 px", labels=[0] * 6, on_unreadable=told.__setitem__, worst=10)
    assert told == {2: "not an image of a known format"}
    assert (report.images, report.skipped) == (5, 1)
    assert str(setting.paths[2]) not in {image.path for image in report.worst}


def test_a_file_that_goes_meanwhile_is_left_out_throughout(setting: Setting) -> None:
    gone, *others = setting.paths
    seen: list[int] = []

    def progress(images: int) -> None:
        seen.append(images)
        gone.unlink(missing_ok=True)

    report = setting.measured("clean", "noise 0.1", progress=progress)
    assert seen == [6, 6]
    assert (report.images, report.skipped) == (5, 1)
    setting.paths = others
    assert report.rows[0].student == setting.measured("clean").rows[0].student
    # The teacher's answer to the clean image serves for the other size; the squashed image is a view of its own.
    seen.clear()
    setting.measured("clean", "160 px", "3:4", batch_size=3, progress=seen.append)
    assert seen == [3, 2] * 4


def test_one_image_is_too_few(setting: Setting) -> None:
    for readable in (1, 0):
        for path in setting.paths[readable:]:
            path.write_bytes(b"nothing")
        with refused(DataError, f"on two images or more, not on {readable}.", "Evaluate on a folder with more readable images."):
            setting.measured()


def test_the_report_survives_json_and_its_tables_show_all_of_it_and_no_empty_columns(setting: Setting) -> None:
    names, more = ("clean", "1/2 on grey", "blur 2%"), {"labels": [0] * 6, "low_resolution": setting.low_resolution}
    report = setting.measured(*names, worst=2, **more)
    assert from_dict(ShiftReport, json.loads(json.dumps(report.to_dict()))) == report
    text = "".join(printed(table) for table in report.tables("runs/first on photos"))
    for row in report.rows:
        line = next(line for line in text.splitlines() if row.condition in line and f"{row.loss:+.3f}" in line)
        for figures in (row.student, row.low_resolution):
            assert f"{figures.same_image:.3f}" in line
            assert f"{figures.clean_image:.3f}" in line
            assert f"{figures.top1:.1%}" in line
    assert "6 images" in text
    for image in report.worst:
        assert Path(image.path).name in text
    headers = " ".join(str(column.header) for column in setting.measured("clean").tables("")[0].columns)
    for absent in ("top-1", "low res", "object"):
        assert absent not in headers
