from pathlib import Path

import pytest
import torch

from benchmarks.speed.small_vits import EQUAL, small_vits
from benchmarks.speed.subjects import KINDS, find_subjects
from sparseformers.errors import ConfigError
from sparseformers.evaluation import measure_cost
from sparseformers.saving import load, save
from tests.exporting.students import FRONTS, student_of
from tests.tiny import SIDE

OF_TEACHER = ("student", "teacher", "tome", "low-resolution")


def test_find_subjects__of_a_student_with_its_teacher(tiny_student: Path) -> None:
    found = find_subjects(str(tiny_student), OF_TEACHER)
    by_name = {each.name: each for each in found.found}
    # Token merging cannot bring so small a teacher down to a quarter.
    assert [*by_name] == ["student", "teacher", "low-resolution"]
    assert len(found.left_out) == 1
    assert found.left_out[0].startswith("tome: No merging of tokens")
    student, teacher, low = by_name.values()
    assert low.preprocessing.size == (SIDE // 2, SIDE // 2)  # 4 tokens of 16
    assert low.cost.multiply_adds < teacher.cost.multiply_adds / 3
    images = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(student.network(images), load(tiny_student)(images).embedding)
    assert student.student is not None
    assert teacher.student is None


def test_folded__is_a_student_for_its_embedding_with_the_cost_of_that(tiny_student: Path) -> None:
    student, teacher = find_subjects(str(tiny_student), ("student", "teacher")).found
    images = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(student.folded.network(images), student.network(images), rtol=0, atol=1e-4)
    assert student.folded.cost.multiply_adds < student.cost.multiply_adds
    assert student.folded.cost == measure_cost(student.folded.network, (SIDE, SIDE))
    assert student.folded.preprocessing == student.preprocessing
    assert student.folded is student.folded
    assert teacher.folded is teacher


def test_find_subjects__without_a_teacher(tmp_path: Path) -> None:
    save(student_of(FRONTS["focusing"]), tmp_path / "alone.safetensors")
    found = find_subjects(str(tmp_path / "alone.safetensors"), OF_TEACHER)
    assert [each.name for each in found.found] == ["student"]
    assert len(found.left_out) == 1
    assert found.left_out[0].startswith("teacher, tome and low-resolution: ")
    assert "does not say which teacher it was made from" in found.left_out[0]


def test_find_subjects__further_students(tiny_student: Path) -> None:
    found = find_subjects(str(tiny_student), ("student", str(tiny_student)))
    assert [each.name for each in found.found] == ["student", str(tiny_student)]


def test_find_subjects__refuses_what_is_no_model(tiny_student: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'sf_base_augreg'"):
        find_subjects("sf_base_augrge", KINDS)
    with pytest.raises(ConfigError, match="Did you mean 'small-vit'"):
        find_subjects(str(tiny_student), ("student", "small-vits"))


@pytest.mark.slow
def test_small_vits__cost_what_is_wanted_and_are_not_the_teachers_kind() -> None:
    found = small_vits(1_000_000_000, unlike_width=192)
    assert 1 <= len(found) <= 2
    for vit in found:
        assert not vit.name.startswith("vit_tiny")
    costs = [measure_cost(vit.network, vit.network.preprocessing.size).multiply_adds for vit in found]
    assert all(abs(cost / 1e9 - 1) <= EQUAL for cost in costs)
    assert costs == sorted(costs, key=lambda cost: abs(cost / 1e9 - 1))
