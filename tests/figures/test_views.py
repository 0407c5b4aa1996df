from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sparseformers.config import PreprocessingConfig
from sparseformers.figures import trace_photographs, trace_rois
from sparseformers.figures.data import WHOLE, coverage, drawn_pixels, inside_frame, network_input, whole_size
from sparseformers.model import SparseFormer
from tests.figures.pictures import looking_at, picture, tiny_student


def chart(width: int, height: int) -> Image.Image:
    """A photograph whose pixels say where they are: red is x and green is y."""
    across, down = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray((255 * np.stack([across, down, 0 * down], axis=-1)).round().astype(np.uint8))


def student_of(**preprocessing: object) -> SparseFormer:
    student = tiny_student()
    student.config = student.config.__class__(
        focusing=student.config.focusing,
        cortex=student.config.cortex,
        preprocessing=PreprocessingConfig(**preprocessing),  # type: ignore[arg-type]
    )
    return student


class TestOwnView:
    @pytest.mark.parametrize("size", [(300, 200), (200, 300), (224, 224), (61, 333), (40, 1600), (1600, 40)])
    @pytest.mark.parametrize("resize", ["shorter", "squash"])
    @pytest.mark.parametrize(("shape", "crop"), [((96, 96), 0.875), ((96, 160), 0.9), ((64, 64), 1.0)])
    def test_the_frame_is_where_its_pixels_come_from(
        self, size: tuple[int, int], resize: str, shape: tuple[int, int], crop: float
    ) -> None:
        preprocessing = PreprocessingConfig(size=shape, crop=crop, resize=resize, interpolation="bilinear")  # type: ignore[arg-type]
        view = network_input(chart(*size), preprocessing, "own")
        assert view.pixels.shape == (3, *shape)
        x1, y1, x2, y2 = view.frame
        assert 0 <= x1 < x2 <= 1
        assert 0 <= y1 < y2 <= 1
        across, down = (torch.arange(side).add(0.5).div(side) for side in reversed(shape))
        places = torch.stack([x1 + across * (x2 - x1), y1 + down[shape[0] // 2] * (y2 - y1) + 0 * across])
        # One step of brightness, and one pixel of the resized image.
        tolerance = 1.5 / 255 + 1.0 / min(shape)
        torch.testing.assert_close(view.pixels[:2, shape[0] // 2], places, atol=tolerance, rtol=0)
        torch.testing.assert_close(view.pixels[1, :, 0], y1 + down * (y2 - y1), atol=tolerance, rtol=0)

    def test_what_was_seen_of_a_crop_lies_in_it(self) -> None:
        student = student_of(size=(64, 64), crop=0.8, interpolation="bicubic")
        photograph = chart(300, 200)
        (traced,) = trace_photographs(student, [("a", photograph)], view="own")
        assert traced.image.shape == (3, 200, 300)
        # The initial RoIs cover what the student is given, from edge to edge.
        first = traced.rois[0]
        edges = (*first[:, :2].amin(dim=0).tolist(), *first[:, 2:].amax(dim=0).tolist())
        assert edges == pytest.approx(traced.frame, abs=1e-6)
        assert traced.frame == pytest.approx((7 / 30, 0.1, 23 / 30, 0.9), abs=0.01)


class TestWholeView:
    @pytest.mark.parametrize("size", [(300, 200), (200, 300), (100, 100), (1000, 31)])
    def test_keeps_all_of_the_photograph_and_its_shape(self, size: tuple[int, int]) -> None:
        view = network_input(chart(*size), PreprocessingConfig(size=(112, 112), crop=0.5), "whole")
        assert view.frame == WHOLE
        height, width = view.pixels.shape[-2:]
        assert view.pixels[0, 0, [0, -1]].tolist() == pytest.approx([0, 1], abs=0.02)
        assert view.pixels[1, [0, -1], 0].tolist() == pytest.approx([0, 1], abs=0.02)
        if max(size) / min(size) < 10:
            assert width / height == pytest.approx(size[0] / size[1], rel=0.02)
            assert width * height == pytest.approx(112 * 112, rel=0.02)

    def test_is_never_too_small_for_a_student(self) -> None:
        assert whole_size(10, 4000, (112, 112)) == (32, 2240)
        assert whole_size(4000, 10, (32, 32)) == (640, 32)

    def test_gives_the_students_rois_on_the_finer_picture(self) -> None:
        student = student_of(size=(64, 64), interpolation="bilinear")
        photograph = chart(384, 96)
        (traced,) = trace_photographs(student, [("a", photograph)])
        (expected,) = trace_rois(student, network_input(photograph, student.config.preprocessing, "whole").pixels[None], ["a"])
        assert expected.image.shape == (3, 32, 128)
        assert traced.image.shape == (3, 96, 384)
        torch.testing.assert_close(traced.rois, expected.rois)
        torch.testing.assert_close(traced.points[-1], expected.points[-1])

    def test_photographs_of_all_shapes_one_after_the_other(self) -> None:
        sizes = [(30, 90), (90, 30), (50, 50)]
        traced = trace_photographs(student_of(size=(48, 48)), ((f"{size}", chart(*size)) for size in sizes))
        assert [tuple(reversed(picture.image.shape[-2:])) for picture in traced] == sizes


class TestDrawnPixels:
    @pytest.mark.parametrize(("size", "drawn"), [((300, 200), (200, 300)), ((4000, 2000), (320, 640)), ((3, 5000), (640, 1))])
    def test_are_no_more_than_are_drawn(self, size: tuple[int, int], drawn: tuple[int, int]) -> None:
        assert drawn_pixels(Image.new("RGB", size)).shape == (3, *drawn)

    def test_hold_the_photograph(self) -> None:
        pixels = drawn_pixels(chart(1280, 640))
        assert pixels[0, 100, [0, 320, 639]].tolist() == pytest.approx([0, 0.5, 1], abs=0.01)
        assert pixels[1, [0, 160, 319], 5].tolist() == pytest.approx([0, 0.5, 1], abs=0.01)


class TestFrame:
    def test_placing_maps_rois_and_points_alike(self) -> None:
        seen = looking_at([(0.0, 1.0), (0.5, 0.5)], side=1.0)
        there = seen.placed(torch.zeros(3, 10, 20), (0.25, 0.1, 0.75, 0.9))
        assert there.rois[0, 0].tolist() == pytest.approx([0.25, 0.1, 0.75, 0.9])
        assert there.points[-1][0].flatten().tolist() == pytest.approx([0.25, 0.9, 0.5, 0.5])
        assert there.image.shape == (3, 10, 20)

    def test_nothing_is_seen_outside_of_it(self) -> None:
        seen = looking_at([(0.0, 0.5), (1.0, 0.5)], side=1.0).placed(torch.zeros(3, 40, 40), (0.25, 0.25, 0.75, 0.75))
        covered = coverage(seen, height=40, width=40)
        given = inside_frame(seen, height=40, width=40)
        assert given.sum() == 400
        assert covered[given == 0].abs().max() == 0
        assert covered[20, 10] > 0.9

    def test_a_point_outside_sees_its_border(self) -> None:
        seen = looking_at([(-4.0, 0.5), (0.5, 9.0)]).placed(torch.zeros(3, 40, 40), (0.25, 0.25, 0.75, 0.75))
        covered = coverage(seen, height=40, width=40)
        assert covered[20, 10] > 0.9
        assert covered[29, 20] > 0.9

    def test_all_of_the_picture_by_default(self) -> None:
        assert picture().frame == WHOLE
        assert inside_frame(picture(), height=4, width=4).min() == 1
