"""The tokens that an embedding is made of: which they are, and what they see."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from sparseformers.errors import ConfigError
from sparseformers.evaluation import token_influence
from sparseformers.figures import TokensPicture, draw_tokens, token_colours, trace_tokens
from sparseformers.figures.data import network_input
from sparseformers.figures.sheet import PanelPlace, divide
from sparseformers.figures.tokens import LARGEST_CUT, cut_out
from tests.figures.overlaps import check_no_overlap
from tests.figures.pictures import boxes_by_colour, headings, noise, photographs_of, tiny_student
from tests.model.small import small_model


def ramp(height: int, width: int) -> torch.Tensor:
    """An image whose red is x and whose green is y of each pixel's centre."""
    across, down = torch.meshgrid((torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height, indexing="xy")
    return torch.stack([across, down, torch.zeros(height, width)])


def picture(*, height: int = 30, width: int = 45, count: int = 3, of: int = 7, title: str = "cat.png") -> TokensPicture:
    """A ramp with RoIs of several shapes."""
    near = torch.linspace(0, 0.6, count)[:, None].expand(-1, 2)
    sides = torch.stack([torch.linspace(0.1, 0.4, count), torch.linspace(0.4, 0.1, count)], dim=1)
    rois = torch.cat([near, near + sides], dim=1)
    influence = torch.linspace(0.3, 0.1, count) / count
    return TokensPicture(ramp(height, width), torch.arange(count).flip(0), influence, rois, of, title)


class TestTrace:
    def test_the_most_influential_come_first_with_their_last_rois(self) -> None:
        student = small_model(tokens=6)
        photographs = photographs_of(torch.rand(2, 3, 40, 48))
        images = torch.stack([network_input(image, student.config.preprocessing, "whole").pixels for _, image in photographs])
        pictures = trace_tokens(student, photographs, count=4)
        with torch.no_grad():
            rois = student(images).rois[:, -1]
        for index, one in enumerate(pictures):
            influence = token_influence(student, images)[index]
            assert one.of == 6
            assert one.tokens.tolist() == sorted(range(6), key=lambda token: -influence[token].item())[:4]
            torch.testing.assert_close(one.influence, influence[one.tokens])
            torch.testing.assert_close(one.rois, rois[index, one.tokens])

    def test_all_of_a_student_that_has_fewer_and_not_none(self) -> None:
        (one,) = trace_tokens(tiny_student(tokens=5), photographs_of(torch.rand(1, 3, 32, 32)))
        assert sorted(one.tokens.tolist()) == [0, 1, 2, 3, 4]
        assert one.influence.sum() == pytest.approx(1)
        assert one.influence.diff().max() <= 0
        with pytest.raises(ConfigError, match=r"There cannot be 0 tokens on a picture\. Ask for one or more"):
            trace_tokens(tiny_student(), [], count=0)

    def test_rois_on_a_photograph_are_in_its_own_coordinates(self) -> None:
        student = tiny_student(size=(64, 64), crop=1.0)
        photograph = noise(128, 64)
        (one,) = trace_tokens(student, [("a", photograph)], view="own", count=5)
        (seen,) = trace_tokens(student, [("a", photograph.crop((32, 0, 96, 64)))], count=5)
        assert one.image.shape == (3, 64, 128)
        assert one.frame == pytest.approx((0.25, 0, 0.75, 1))
        torch.testing.assert_close(one.influence, seen.influence, atol=1e-4, rtol=1e-3)
        there = seen.rois * torch.tensor([0.5, 1, 0.5, 1]) + torch.tensor([0.25, 0, 0.25, 0])
        torch.testing.assert_close(one.rois, there, atol=1e-4, rtol=1e-3)


class TestCutOut:
    def test_of_whole_pixels_is_those_pixels(self) -> None:
        image = torch.rand(3, 20, 40)
        cut = cut_out(image, torch.tensor([0.25, 0.5, 0.75, 0.75]))
        torch.testing.assert_close(cut, image[:, 10:15, 10:30], atol=1e-4, rtol=0)

    def test_between_pixels_is_in_the_right_place(self) -> None:
        roi = torch.tensor([0.2, 0.3, 0.5, 0.9])
        cut = cut_out(ramp(100, 50), roi)
        assert cut.shape == (3, 60, 15)
        torch.testing.assert_close(cut[0, 0], 0.2 + (torch.arange(15) + 0.5) / 15 * 0.3, atol=1e-4, rtol=0)
        torch.testing.assert_close(cut[1, :, 0], 0.3 + (torch.arange(60) + 0.5) / 60 * 0.6, atol=1e-4, rtol=0)

    def test_outside_of_the_image_its_border_is_repeated(self) -> None:
        image = torch.rand(3, 10, 10)
        cut = cut_out(image, torch.tensor([-0.5, 0.2, 0.5, 1.4]))
        assert cut.shape == (3, 12, 10)
        torch.testing.assert_close(cut[:, :8, 5:], image[:, 2:, :5], atol=1e-4, rtol=0)
        torch.testing.assert_close(cut[:, :8, :5], image[:, 2:, :1].expand(-1, -1, 5), atol=1e-4, rtol=0)
        torch.testing.assert_close(cut[:, 8:, 5:], image[:, -1:, :5].expand(-1, 4, -1), atol=1e-4, rtol=0)

    def test_the_border_is_that_of_what_the_student_was_given(self) -> None:
        image = ramp(10, 20)
        cut = cut_out(image, torch.tensor([0.0, 0.0, 1.0, 1.0]), (0.25, 0.0, 0.75, 1.0))
        torch.testing.assert_close(cut[0, 0, [0, 4, 5, 14, 15, 19]], image[0, 0, [5, 5, 5, 14, 14, 14]], atol=1e-4, rtol=0)

    def test_of_hardly_anything_of_very_much_and_of_nowhere(self) -> None:
        for roi in ((0.5, 0.5, 0.5, 0.5), (2.0, 2.0, 2.1, 2.1), (0.3, 0.1, 0.3, 0.9)):
            assert min(cut_out(torch.rand(3, 8, 8), torch.tensor(roi)).shape) >= 1
        cut = cut_out(torch.rand(3, 100, 100), torch.tensor([-20.0, -10.0, 20.0, 10.0]))
        assert cut.shape == (3, LARGEST_CUT // 2, LARGEST_CUT)
        assert cut_out(torch.ones(3, 8, 8), torch.tensor([0.0, 0.0, float("nan"), 1.0])).tolist() == [[[0.0]]] * 3

    def test_contents_are_cut_from_the_picture_that_is_drawn(self) -> None:
        one = picture()
        finer = dataclasses.replace(one, image=ramp(300, 450))
        for coarse, fine in zip(one.contents, finer.contents, strict=True):
            assert fine.shape[1] >= 7 * coarse.shape[1]


def test_divide__cells_are_as_large_as_they_can_be() -> None:
    for width, height, count, rows in ((5.0, 2.5, 8, 2), (5.0, 0.6, 8, 1), (2.0, 9.0, 6, 6)):
        places = divide(PanelPlace(0, 0, 1, 1), count, width=width, height=height, caption=0.2)
        assert len({round(place.bottom, 6) for place in places}) == rows
        assert len(places) == count


class TestFigure:
    def test_what_is_written(self) -> None:
        one = picture(count=2)
        figure = draw_tokens([one])
        assert headings(figure) == ["Their RoIs", "What is inside", "The 2 most influential of 7 tokens", "cat.png"]
        on_image, *contents = figure.axes
        assert [text.get_text() for text in on_image.texts] == ["1", "2", "together 20.0% of the attention"]
        assert [text.get_text() for axes in contents for text in axes.texts] == ["1: 15.0%", "2: 5.0%"]
        assert draw_tokens([picture(count=7)]).texts[-2].get_text() == "All 7 tokens"

    def test_a_token_has_its_colour_everywhere(self) -> None:
        one = picture(count=3, of=7)
        figure = draw_tokens([one])
        expected = [tuple(token_colours(7)[token]) for token in one.tokens]
        on_image, *contents = figure.axes
        labels: list[Any] = [text.get_bbox_patch() for text in on_image.texts[:3]]
        assert [to_rgb(label.get_facecolor()) for label in labels] == expected
        assert [to_rgb(axes.patches[0].get_edgecolor()) for axes in contents] == expected
        assert boxes_by_colour(on_image).keys() == {tuple(np.round(colour, 6)) for colour in expected}

    def test_contents_are_drawn_in_the_order_of_influence_and_in_their_shapes(self) -> None:
        one = picture(count=4)
        contents = draw_tokens([one]).axes[1:]
        for axes, content in zip(contents, one.contents, strict=True):
            np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), content.permute(1, 2, 0), atol=1e-6)
            box = axes.get_window_extent()
            assert box.width / box.height == pytest.approx(content.shape[2] / content.shape[1], rel=1e-3)

    def test_nothing_overlaps(self) -> None:
        for height, width, pictures, count, columns in ((30, 45, 1, 8, None), (90, 20, 3, 3, 2), (12, 90, 2, 5, None)):
            figure = draw_tokens([picture(height=height, width=width, count=count, of=64)] * pictures, columns=columns)
            assert len(figure.axes) == pictures * (1 + count)
            check_no_overlap(figure)

    def test_wrong_requests_and_pictures(self) -> None:
        with pytest.raises(ValueError, match="the same numbers of tokens"):
            draw_tokens([picture(count=2), picture(count=3)])
        one = picture()
        for changed, message in (({"rois": one.rois[:2]}, "3 tokens need as many"), ({"image": torch.zeros(4, 4)}, "3 x H x W")):
            with pytest.raises(ValueError, match=message):
                dataclasses.replace(one, **changed)
