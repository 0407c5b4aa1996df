"""The map of a student beside its teacher's attention: what is traced, where it is drawn, and who has none."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sparseformers.errors import ConfigError
from sparseformers.evaluation.attention import AttendingTeacher
from sparseformers.figures import draw_iterations, draw_map, draw_student, trace_map, trace_photographs
from sparseformers.figures.map import as_read, trace_maps
from sparseformers.inheritance import inherit
from sparseformers.model import SparseFormer
from sparseformers.teachers import Teacher, load_teacher
from tests.figures.pictures import headings, part, photographs_of, tiny_student
from tests.model.small import scattered
from tests.tiny import SIDE, write_teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return load_teacher(write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors"), image_size=SIDE)


@pytest.fixture(scope="module")
def student(teacher: Teacher) -> SparseFormer:
    """One whose map depends on the image."""
    made = inherit(teacher, front="mixed", tokens=10).student.eval()
    torch.manual_seed(0)  # what is made for all tests of a file is made before a test has a seed
    scattered(made.focusing.selector, scale=0.2)
    return made


def images(count: int = 2) -> Tensor:
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    return torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)


class TestTrace:
    def test_the_maps_of_student_and_teacher_on_what_both_are_given(self, student: SparseFormer, teacher: Teacher) -> None:
        pictures = trace_maps(student, AttendingTeacher(teacher), images(), ["a", "b"])
        with torch.no_grad():
            output, attended = student(images()), AttendingTeacher(teacher).eval()(images()).attention_map
        for index, picture in enumerate(pictures):
            torch.testing.assert_close(picture.traced.attention_map, output.attention_map[index])
            torch.testing.assert_close(picture.attended, attended[index])
            assert torch.equal(picture.traced.rois, output.rois[index])
        assert not torch.allclose(output.attention_map[0], output.attention_map[1])

    @pytest.mark.parametrize("view", ["whole", "own"])
    def test_photographs_of_any_shape(self, student: SparseFormer, teacher: Teacher, view: str) -> None:
        wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 120, 3), dtype=np.uint8))
        (picture,) = trace_map(student, teacher, [("a", wide)], view=view)  # type: ignore[arg-type]
        assert picture.traced.image.shape == (3, 60, 120)
        x1, y1, x2, y2 = picture.traced.frame
        assert (x2 - x1 < 1) == (view == "own")
        areas = (picture.traced.rois[-1, :, 2:] - picture.traced.rois[-1, :, :2]).prod(dim=1)
        assert areas.sum().item() == pytest.approx((x2 - x1) * (y2 - y1), abs=1e-5)  # the leaves tile what was given
        draw_map([picture])

    @pytest.mark.parametrize("front", ["grid", "focusing"])
    def test_a_student_without_a_map(self, teacher: Teacher, front: str) -> None:
        other = inherit(teacher, front="grid", tokens=4).student if front == "grid" else tiny_student()
        with pytest.raises(ConfigError, match=f"has no map of where to look: its front is '{front}'") as refused:
            trace_map(other, teacher, photographs_of(images()))
        assert "--front mixed" in str(refused.value)


class TestDraw:
    def test_a_row_has_the_input_the_glance_both_maps_and_the_leaves(
        self, student: SparseFormer, teacher: Teacher, tmp_path: object
    ) -> None:
        (picture,) = trace_map(student, teacher, photographs_of(images(1)))
        figure = draw_map([picture])
        titles = ["Input", "The glance", "The student's map", "The teacher's attention", "The leaves, as they are read", "a"]
        assert headings(figure) == titles
        whole, glance, ours, theirs, leaves = figure.axes[:5]
        assert len(part(leaves, "cells").get_paths()) == 10
        rows, columns = (cells * picture.front.patch_size << picture.front.glance for cells in picture.front.start)
        shown = np.asarray(glance.images[0].get_array())
        assert len(np.unique(shown.reshape(-1, 3), axis=0)) <= rows * columns
        assert not np.array_equal(shown, np.asarray(whole.images[0].get_array())) or rows >= SIDE
        said = [text.get_text() for text in ours.texts]
        assert said[0].endswith("even")
        assert said[1].endswith("nats away")
        assert len(theirs.texts) == 1

    def test_a_map_that_is_the_teachers_agrees_with_it(self, student: SparseFormer, teacher: Teacher) -> None:
        (picture,) = trace_map(student, teacher, photographs_of(images(1)))
        same = picture.traced.attention_map
        figure = draw_map([dataclasses.replace(picture, attended=same)])
        said = [text.get_text() for text in figure.axes[2].texts]
        assert said[1] == "100% of the heaviest third, 0.00 nats away"
        ours, theirs = (np.asarray(axes.images[0].get_array()) for axes in figure.axes[2:4])
        assert np.array_equal(ours, theirs)


def test_as_read__a_leaf_has_so_many_pixels_and_the_rest_stays() -> None:
    image = torch.rand(3, 40, 60)
    read = as_read(image, torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.75, 0.75]]), (2, 2))
    assert torch.equal(read[:, :20, 30:], image[:, :20, 30:])
    assert len(read[0, :20, :30].unique()) == len(read[0, 20:30, 30:45].unique()) == 4
    torch.testing.assert_close(read[:, :20, :30].mean(dim=(1, 2)), image[:, :20, :30].mean(dim=(1, 2)), atol=0.05, rtol=0)


def test_stages_of_splits_have_names_of_their_own(student: SparseFormer) -> None:
    pictures = trace_photographs(student, photographs_of(images(1)))
    assert pictures[0].stage_names[0] == "start"
    assert pictures[0].stage_names[-1] == "leaves"
    stages = len(pictures[0].rois)
    names = ["Start", *(f"Split {stage}" for stage in range(1, stages - 1)), "Leaves"]
    assert headings(draw_iterations(pictures)) == [*names, "a"]
    assert headings(draw_student(pictures, stages=[0, -1]))[1:3] == ["RoIs, start", "RoIs, leaves"]
