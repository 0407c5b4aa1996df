from __future__ import annotations

import pytest
import torch

from sparseformers.figures import RoIPicture, coverage, trace_rois
from sparseformers.figures.data import inside_rois
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
            assert len(traced.points) == 4
            for traced_look, look in zip(traced.points, points, strict=True):
                assert torch.equal(traced_look, look[index])
        assert not torch.equal(pictures[0].rois[-1], pictures[1].rois[-1])

    def test_restores_the_mode_of_each_module(self) -> None:
        student = tiny_student().train()
        student.cortex.eval()
        modes = [module.training for module in student.modules()]
        trace_rois(student, torch.rand(1, 3, 32, 32), ["a"])
        assert [module.training for module in student.modules()] == modes
        assert True in modes
        assert False in modes

    def test_restores_the_mode_after_an_error(self) -> None:
        student = tiny_student().train()
        with pytest.raises(ValueError, match="at least 32 pixels"):
            trace_rois(student, torch.rand(1, 3, 16, 16), ["a"])
        assert all(module.training for module in student.modules())

    def test_gives_ordinary_tensors_of_their_own(self) -> None:
        images = torch.rand(1, 3, 32, 32)
        (traced,) = trace_rois(tiny_student(), images, ["a"])
        for tensor in (traced.image, traced.rois, *traced.points):
            assert tensor.dtype == torch.float32
            assert not tensor.is_inference()
            assert not tensor.requires_grad
        traced.image.zero_()
        assert images.sum() > 0

    def test_wants_a_title_for_each_image(self) -> None:
        with pytest.raises(ValueError, match="there are 2 images, but 1 titles"):
            trace_rois(tiny_student(), torch.rand(2, 3, 32, 32), ["a"])


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
    def test_peaks_at_the_points(self) -> None:
        seen = coverage(looking_at([(0.25, 0.75), (0.8, 0.1)]), height=40, width=60)
        assert seen.shape == (40, 60)
        assert seen[30, 15] == pytest.approx(0.95, abs=1e-3)
        assert seen[4, 48] == pytest.approx(0.95, abs=1e-3)
        assert seen.max() <= 1
        assert seen.min() == pytest.approx(0, abs=1e-6)
        assert seen[20, 30] < 1e-6

    def test_is_higher_where_more_points_look(self) -> None:
        once = coverage(looking_at([(0.5, 0.5), (0.1, 0.1)]), height=32, width=32)
        twice = coverage(looking_at([(0.5, 0.5), (0.5, 0.5)]), height=32, width=32)
        assert twice[16, 16] > once[16, 16]
        assert twice[16, 16] == pytest.approx(1 - 0.05**2, abs=1e-3)

    def test_a_larger_roi_sees_more_around_its_points(self) -> None:
        points = [(0.5, 0.5), (0.5, 0.5)]
        small, large = (coverage(looking_at(points, side=side), height=64, width=64).sum() for side in (0.1, 0.4))
        assert large > 4 * small

    def test_the_neighbourhood_is_as_wide_and_high_as_the_roi(self) -> None:
        wide = RoIPicture(
            torch.zeros(3, 8, 8),
            torch.tensor([[[0.2, 0.4, 0.8, 0.5]]]),
            (torch.full((1, 4, 2), 0.5),),
            "wide",
        )
        seen = coverage(wide, height=65, width=65)
        assert (seen[32] > 0.5).sum() > 3 * (seen[:, 32] > 0.5).sum()

    def test_a_point_outside_sees_the_border(self) -> None:
        seen = coverage(looking_at([(1.7, 0.5), (0.5, -3.0)]), height=32, width=32)
        assert seen[16, 31] == pytest.approx(0.95, abs=1e-3)
        assert seen[0, 16] == pytest.approx(0.95, abs=1e-3)

    def test_is_of_the_last_points_only(self) -> None:
        seen = coverage(looking_at([(0.5, 0.5), (0.9, 0.9)]), height=32, width=32)
        assert seen[0, 0] < 1e-6  # where the look before was

    def test_survives_points_that_are_not_finite(self) -> None:
        seen = coverage(looking_at([(float("nan"), 0.5), (0.5, 0.5)]), height=32, width=32)
        assert torch.isfinite(seen).all()
        assert seen[16, 16] == pytest.approx(0.95, abs=1e-3)

    def test_a_coarse_result_still_peaks_at_a_tiny_roi(self) -> None:
        seen = coverage(looking_at([(0.5, 0.5), (0.5, 0.5)], side=1e-4), height=4, width=4)
        assert seen[2, 2] > 0.9


def test_inside_rois_is_their_union() -> None:
    inside = inside_rois(torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 2.0, 0.75]]), height=8, width=4)
    expected = torch.zeros(8, 4)
    expected[:4, :2] = 1
    expected[4:6, 2:] = 1
    assert torch.equal(inside, expected)
