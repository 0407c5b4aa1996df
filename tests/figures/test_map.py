"""Maps: where sampling points fall, and where a student expects its teacher to look, beside where the teacher looks."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sparseformers.errors import ConfigError
from sparseformers.evaluation import TeacherAttention
from sparseformers.evaluation.attention import AttendingTeacher
from sparseformers.figures import (
    DensityPicture,
    draw_density,
    draw_iterations,
    draw_map,
    draw_student,
    trace_density,
    trace_map,
    trace_photographs,
)
from sparseformers.figures.map import LIGHTEST, as_read, density, heat_over, trace_maps
from sparseformers.inheritance import inherit
from sparseformers.model import SparseFormer
from sparseformers.rois import cells, regular_points
from sparseformers.teachers import Teacher, load_teacher
from tests.figures.overlaps import check_no_overlap
from tests.figures.pictures import headings, in_bytes, noise, part, photographs_of, tiny_student
from tests.model.small import original_model, scattered
from tests.refusals import refused
from tests.teachers import test_timm as timm
from tests.teachers.identity import images_for
from tests.tiny import SIDE

SMALL = torch.tensor([[0.0, 0.0, 1e-6, 1e-6]])
"""A RoI without a size to speak of: its points are points."""


def points_at(*places: tuple[float, float]) -> Tensor:
    return torch.tensor([places])


def picture(*, height: int = 30, width: int = 45, count: int = 2, **given: Tensor) -> DensityPicture:
    """Grey, with given densities and maps, or else with some on 3 x 4 patches that are all different."""
    shares = torch.rand(count + 2, 3, 4, generator=torch.Generator().manual_seed(1))
    shares = shares / shares.sum(dim=(1, 2), keepdim=True)
    maps = {"points": shares[:-2], "last": shares[-2], "rollout": shares[-1]} | given
    return DensityPicture(image=torch.full((3, height, width), 0.5), title="cat.png", **maps)


class TestDensity:
    def test_of_known_points_and_of_those_outside_at_the_border(self) -> None:
        points = points_at((0.1, 0.2), (0.1, 0.3), (0.9, 0.9), (0.6, 0.1))
        expected = torch.tensor([[0.5, 0, 0.25, 0], [0, 0, 0, 0.25]])
        torch.testing.assert_close(density(SMALL, points, 2, 4), expected, atol=1e-4, rtol=0)
        points = points_at((-3.0, 0.3), (1.2, 1.7), (0.6, -0.1), (0.51, 7.0))
        expected = torch.tensor([[0.25, 0.25], [0, 0.5]])
        torch.testing.assert_close(density(SMALL, points, 2, 2), expected, atol=1e-4, rtol=0)
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])  # with one point, whose box is as large, and is moved with it
        torch.testing.assert_close(density(whole, points_at((-3.0, 0.5)), 1, 4), torch.tensor([[0.75, 0.25, 0, 0]]))

    def test_a_point_counts_in_its_part_of_the_roi_and_what_is_not_finite_does_not_count(self) -> None:
        # Four points in a RoI of half the width: boxes a quarter wide, of which the first has a third to the left of 0.5.
        rois = torch.tensor([[0.25, 0.5, 0.75, 0.5]])
        third = 0.5 + 0.25 / 6
        points = points_at((third, 0.5), (0.9, 0.5), (0.9, 0.5), (0.9, 0.5))
        expected = torch.tensor([[1 / 12, 11 / 12]])
        torch.testing.assert_close(density(rois, points, 1, 2), expected, atol=1e-4, rtol=0)
        rois = torch.tensor([[0.0, 0, 0, 0], [0, 0, math.inf, 1]])
        points = torch.tensor([[[0.1, 0.1], [math.nan, 0.9]], [[0.9, 0.9], [0.9, 0.9]]])
        assert density(rois, points, 2, 2).tolist() == [[1, 0], [0, 0]]
        assert density(rois, torch.full((2, 2, 2), math.nan), 2, 2).sum() == 0

    @pytest.mark.parametrize("tokens", [4, 7, 49])
    def test_of_a_tiled_image_is_exactly_even(self, tokens: int) -> None:
        rois = cells(tokens)
        for grid in ((8, 8), (16, 16), (5, 7)):
            counted = density(rois, regular_points(rois[None], 14)[0], *grid)
            if tokens != 7:  # rows of 2, 3 and 2 are not even
                assert counted.unique().numel() == 1
            assert counted.sum() == pytest.approx(1, abs=1e-4)


class TestTrace:
    def test_maps_are_of_the_same_images(self) -> None:
        teacher = load_teacher(timm.tiny())
        options = {"focusing_width": 64, "channels": 8, "points": 4, "iterations": 2}
        student = inherit(teacher, front="focusing", tokens=4, **options).student
        scattered(student.focusing, scale=0.3)
        images = in_bytes(images_for(teacher, 3).clamp(0, 1))
        pictures = trace_density(student, teacher, photographs_of(images))
        maps = TeacherAttention(teacher)(images)
        assert [one.title for one in pictures] == ["a", "b", "c"]
        for index, one in enumerate(pictures):
            assert one.points.shape == (3, 4, 4)
            torch.testing.assert_close(one.image, images[index])
            torch.testing.assert_close(one.last, maps.last[index])
            torch.testing.assert_close(one.rollout, maps.rollout[index])
        with torch.no_grad():
            rois, points = student(images).rois[1], student.sampling_points(images)[2][1]
        torch.testing.assert_close(pictures[1].points[2], density(rois[2], points, 4, 4))

    @pytest.mark.parametrize(("student", "stages"), [(tiny_student(iterations=3), 4), (original_model(), 3)])
    def test_students_of_other_kinds(self, student: SparseFormer, stages: int) -> None:
        teacher = load_teacher(timm.tiny(img_size=(40, 56)))
        (one,) = trace_density(student, teacher, photographs_of(torch.rand(1, 3, 40, 56)))
        assert one.points.shape == (stages, 5, 7)
        torch.testing.assert_close(one.points.sum(dim=(1, 2)), torch.ones(stages), atol=1e-3, rtol=0)

    def test_a_photograph_keeps_its_shape_and_says_what_was_seen(self) -> None:
        teacher = load_teacher(timm.tiny(), crop=0.5)
        student = inherit(teacher, front="grid", tokens=4).student
        (own,) = trace_density(student, teacher, [("a", noise(120, 60))], view="own")
        (whole,) = trace_density(student, teacher, [("a", noise(120, 60))])
        assert own.image.shape == whole.image.shape == (3, 60, 120)
        np.testing.assert_allclose(own.frame, (3 / 8, 1 / 4, 5 / 8, 3 / 4), atol=0.01)
        assert whole.frame == (0, 0, 1, 1)
        assert not torch.allclose(own.last, whole.last, atol=1e-4)


class TestHeat:
    def test_colours_tell_none_from_much_on_any_photograph(self) -> None:
        heat = torch.tensor([[0.0, 1.0]])
        for grey in (0.0, 0.5, 1.0):
            none, much = heat_over(torch.full((3, 20, 40), grey), heat, (0, 0, 1, 1))[:, 10, [0, -1]].T
            assert much.mean() - none.mean() > 0.15
            assert none[2] > 1.3 * none[0]  # dark blue
            assert much[0] > 1.3 * much[2]  # yellow

    def test_a_map_lies_where_the_frame_is_and_what_was_not_given_is_dark_and_grey(self) -> None:
        over = heat_over(torch.ones(3, 8, 8), torch.ones(2, 2) / 4, (0.5, 0.0, 1.0, 1.0))
        torch.testing.assert_close(over[:, :, :4], torch.full((3, 8, 4), 0.3))
        assert (over[2, :, 4:] - over[0, :, 4:]).min() > 0.01
        heat = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        over = heat_over(torch.ones(3, 40, 40), heat, (0.5, 0.0, 1.0, 1.0))
        lightest = over[0].flatten().argmax().item()
        assert lightest % 40 >= 30
        assert lightest // 40 < 20

    def test_one_scale_for_all(self) -> None:
        def colour(peak: float) -> Tensor:
            heat = torch.full((1, 12), (1 - peak / 12) / 11)
            heat[0, 0] = peak / 12
            return heat_over(torch.ones(3, 4, 120), heat, (0, 0, 1, 1))[:, 2, 0]

        torch.testing.assert_close(colour(LIGHTEST), colour(2 * LIGHTEST), atol=0.02, rtol=0)
        assert colour(LIGHTEST)[0] > colour(LIGHTEST / 2)[0] + 0.1


class TestFigure:
    def test_what_is_written(self) -> None:
        even = torch.full((2, 2), 0.25)
        first, last = torch.tensor([[0.1, 0.2], [0.3, 0.4]]), torch.tensor([[0.4, 0.3], [0.2, 0.1]])
        figure = draw_density([picture(points=torch.stack([even, first]), last=last, rollout=first)])
        panels = ["Input", "Points 1", "Last points", "Attention, last block", "Attention rollout"]
        assert headings(figure) == [*panels, "Where sampling points fall", "What the teacher attends to", "cat.png"]
        assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [
            [],
            ["at most 1 × even", "ρ – last block, – rollout"],  # noqa: RUF001
            ["at most 1.6 × even", "ρ −1.00 last block, +1.00 rollout"],  # noqa: RUF001
            ["at most 1.6 × even"],  # noqa: RUF001
            ["at most 1.6 × even"],  # noqa: RUF001
        ]

    def test_each_panel_has_its_own_map(self) -> None:
        one = picture()
        figure = draw_density([one])
        for axes, heat in zip(figure.axes[1:], [*one.points, one.last, one.rollout], strict=True):
            expected = heat_over(one.image, heat, one.frame).permute(1, 2, 0)
            np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), expected, atol=1e-6)

    def test_nothing_overlaps_and_shapes_are_kept(self) -> None:
        for height, width, count, columns in ((30, 45, 1, None), (90, 20, 3, 2)):
            figure = draw_density([picture(height=height, width=width)] * count, columns=columns)
            check_no_overlap(figure)
            assert len(figure.axes) == 5 * count
            box = figure.axes[1].get_window_extent()
            room = 0.08 * max(height, width)
            assert box.width / box.height == pytest.approx((width + room) / (height + room), rel=1e-3)

    def test_wrong_requests_and_pictures(self) -> None:
        with pytest.raises(ValueError, match="the same number of stages"):
            draw_density([picture(count=2), picture(count=3)])
        flat, turned = torch.zeros(3, 4), torch.zeros(4, 3)
        for wrong, message in (({"points": flat}, "S x h x w"), ({"last": turned}, "same rows"), ({"image": flat}, "3 x H x W")):
            with pytest.raises(ValueError, match=message):
                dataclasses.replace(picture(), **wrong)


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


class TestTraceMap:
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
        (picture,) = trace_map(student, teacher, [("a", noise(120, 60))], view=view)  # type: ignore[arg-type]
        assert picture.traced.image.shape == (3, 60, 120)
        x1, y1, x2, y2 = picture.traced.frame
        assert (x2 - x1 < 1) == (view == "own")
        areas = (picture.traced.rois[-1, :, 2:] - picture.traced.rois[-1, :, :2]).prod(dim=1)
        assert areas.sum().item() == pytest.approx((x2 - x1) * (y2 - y1), abs=1e-5)  # the leaves tile what was given
        draw_map([picture])

    def test_a_student_without_a_map(self, teacher: Teacher) -> None:
        with refused(ConfigError, "has no map of where to look: its front is 'focusing'", "--front mixed"):
            trace_map(tiny_student(), teacher, photographs_of(images()))


class TestDrawMap:
    def test_a_row_has_the_input_the_glance_both_maps_and_the_leaves(self, student: SparseFormer, teacher: Teacher) -> None:
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
        # A map that is the teacher's agrees with it.
        figure = draw_map([dataclasses.replace(picture, attended=picture.traced.attention_map)])
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
