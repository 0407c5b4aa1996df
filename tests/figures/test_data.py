import numpy as np
import pytest
import torch
from PIL import Image

from sparseformers.config import PreprocessingConfig
from sparseformers.figures import RoIPicture, coverage, trace_photographs, trace_rois
from sparseformers.figures.data import WHOLE, drawn_pixels, inside_frame, inside_rois, network_input, whole_size
from tests.figures.pictures import looking_at, picture, tiny_student


class TestTraceFocus:
    def test_gives_the_students_rois_and_points(self) -> None:
        student = tiny_student().eval()
        images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(3))
        pictures = trace_rois(student, images, ["a", "b"])
        with torch.no_grad():
            rois, points = student(images).rois, student.sampling_points(images)
        assert [traced.title for traced in pictures] == ["a", "b"]
        for index, traced in enumerate(pictures):
            assert torch.equal(traced.image, images[index])
            assert torch.equal(traced.rois, rois[index])
            assert traced.rois.shape == (4, 5, 4)
            assert torch.equal(torch.stack(traced.points), torch.stack(list(points))[:, index])
        assert not torch.equal(pictures[0].rois[-1], pictures[1].rois[-1])

    def test_restores_the_mode_of_each_module_after_an_error_too(self) -> None:
        student = tiny_student().train()
        student.cortex.eval()
        modes = [module.training for module in student.modules()]
        trace_rois(student, torch.rand(1, 3, 32, 32), ["a"])
        assert [module.training for module in student.modules()] == modes
        with pytest.raises(ValueError, match="at least 32 pixels"):
            trace_rois(student, torch.rand(1, 3, 16, 16), ["a"])
        assert [module.training for module in student.modules()] == modes
        with pytest.raises(ValueError, match="there are 2 images, but 1 titles"):
            trace_rois(student, torch.rand(2, 3, 32, 32), ["a"])

    def test_gives_ordinary_tensors_of_their_own(self) -> None:
        images = torch.rand(1, 3, 32, 32)
        (traced,) = trace_rois(tiny_student(), images, ["a"])
        for tensor in (traced.image, traced.rois, *traced.points):
            assert tensor.dtype == torch.float32
            assert not tensor.is_inference()
            assert not tensor.requires_grad
        traced.image.zero_()
        assert images.sum() > 0


class TestRoIPicture:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"image": torch.zeros(1, 8, 8)}, r"3 x H x W, not \(1, 8, 8\)"),
            ({"rois": torch.zeros(2, 4)}, r"S x N x 4, not \(2, 4\)"),
            ({"points": (torch.zeros(7, 4, 2),)}, r"6 x P x 2, not \(7, 4, 2\)"),
            ({"points": ()}, "at least one stage"),
        ],
    )
    def test_refuses_other_shapes(self, change: dict[str, object], message: str) -> None:
        good = picture()
        parts = {"image": good.image, "rois": good.rois, "points": good.points, "title": "a"} | change
        with pytest.raises(ValueError, match=message):
            RoIPicture(**parts)  # type: ignore[arg-type]


class TestCoverage:
    def test_peaks_at_the_points_and_at_the_border_for_those_outside(self) -> None:
        seen = coverage(looking_at([(0.25, 0.75), (0.8, 0.1)]), height=40, width=60)
        assert seen.shape == (40, 60)
        assert seen[30, 15] == pytest.approx(0.95, abs=1e-3)
        assert seen[4, 48] == pytest.approx(0.95, abs=1e-3)
        assert seen.max() <= 1
        assert seen.min() == pytest.approx(0, abs=1e-6)
        assert seen[20, 30] < 1e-6
        assert seen[0, 0] < 1e-6  # where the look before was
        seen = coverage(looking_at([(1.7, 0.5), (0.5, -3.0)]), height=32, width=32)
        assert seen[16, 31] == pytest.approx(0.95, abs=1e-3)
        assert seen[0, 16] == pytest.approx(0.95, abs=1e-3)

    def test_survives_points_that_are_not_finite_and_a_tiny_roi_on_coarse_pixels(self) -> None:
        seen = coverage(looking_at([(float("nan"), 0.5), (0.5, 0.5)]), height=32, width=32)
        assert torch.isfinite(seen).all()
        assert seen[16, 16] == pytest.approx(0.95, abs=1e-3)
        seen = coverage(looking_at([(0.5, 0.5), (0.5, 0.5)], side=1e-4), height=4, width=4)
        assert seen[2, 2] > 0.9


def test_inside_rois_is_their_union() -> None:
    inside = inside_rois(torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 2.0, 0.75]]), height=8, width=4)
    expected = torch.zeros(8, 4)
    expected[:4, :2] = 1
    expected[4:6, 2:] = 1
    assert torch.equal(inside, expected)


def chart(width: int, height: int) -> Image.Image:
    """A photograph whose pixels say where they are: red is x and green is y."""
    across, down = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray((255 * np.stack([across, down, 0 * down], axis=-1)).round().astype(np.uint8))


class TestOwnView:
    @pytest.mark.parametrize("size", [(300, 200), (224, 224), (61, 333), (1600, 40)])
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
        student = tiny_student(size=(64, 64), crop=0.8, interpolation="bicubic")
        photograph = chart(300, 200)
        (traced,) = trace_photographs(student, [("a", photograph)], view="own")
        assert traced.image.shape == (3, 200, 300)
        # The initial RoIs cover what the student is given, from edge to edge.
        first = traced.rois[0]
        edges = (*first[:, :2].amin(dim=0).tolist(), *first[:, 2:].amax(dim=0).tolist())
        assert edges == pytest.approx(traced.frame, abs=1e-6)
        assert traced.frame == pytest.approx((7 / 30, 0.1, 23 / 30, 0.9), abs=0.01)


class TestWholeView:
    def test_keeps_all_of_the_photograph_and_its_shape_and_is_never_too_small_for_a_student(self) -> None:
        for size in ((300, 200), (200, 300), (100, 100), (1000, 31)):
            view = network_input(chart(*size), PreprocessingConfig(size=(112, 112), crop=0.5), "whole")
            assert view.frame == WHOLE
            height, width = view.pixels.shape[-2:]
            assert view.pixels[0, 0, [0, -1]].tolist() == pytest.approx([0, 1], abs=0.02)
            assert view.pixels[1, [0, -1], 0].tolist() == pytest.approx([0, 1], abs=0.02)
            if max(size) / min(size) < 10:
                assert width / height == pytest.approx(size[0] / size[1], rel=0.02)
                assert width * height == pytest.approx(112 * 112, rel=0.02)
        assert whole_size(10, 4000, (112, 112)) == (32, 2240)
        assert whole_size(4000, 10, (32, 32)) == (640, 32)

    def test_gives_the_students_rois_on_the_finer_picture(self) -> None:
        student = tiny_student(size=(64, 64), interpolation="bilinear")
        photograph = chart(384, 96)
        (traced,) = trace_photographs(student, [("a", photograph)])
        (expected,) = trace_rois(student, network_input(photograph, student.config.preprocessing, "whole").pixels[None], ["a"])
        assert expected.image.shape == (3, 32, 128)
        assert traced.image.shape == (3, 96, 384)
        torch.testing.assert_close(traced.rois, expected.rois)
        torch.testing.assert_close(traced.points[-1], expected.points[-1])
        sizes = [(30, 90), (50, 50)]  # of any shapes, one after the other
        of_each = trace_photographs(student, ((f"{size}", chart(*size)) for size in sizes))
        assert [tuple(reversed(each.image.shape[-2:])) for each in of_each] == sizes


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

    def test_nothing_is_seen_outside_of_it_and_a_point_outside_sees_its_border(self) -> None:
        seen = looking_at([(0.0, 0.5), (1.0, 0.5)], side=1.0).placed(torch.zeros(3, 40, 40), (0.25, 0.25, 0.75, 0.75))
        covered = coverage(seen, height=40, width=40)
        given = inside_frame(seen, height=40, width=40)
        assert given.sum() == 400
        assert covered[given == 0].abs().max() == 0
        assert covered[20, 10] > 0.9
        seen = looking_at([(-4.0, 0.5), (0.5, 9.0)]).placed(torch.zeros(3, 40, 40), (0.25, 0.25, 0.75, 0.75))
        covered = coverage(seen, height=40, width=40)
        assert covered[20, 10] > 0.9
        assert covered[29, 20] > 0.9

    def test_all_of_the_picture_by_default(self) -> None:
        assert picture().frame == WHOLE
        assert inside_frame(picture(), height=4, width=4).min() == 1
