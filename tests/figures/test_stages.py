"""RoIs stage by stage: of one model or several, a panel for each iteration, and the frames and files of an animation."""

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from sparseformers.errors import ConfigError
from sparseformers.figures import (
    ModelsPicture,
    RoIPicture,
    draw_frames,
    draw_iterations,
    draw_models,
    draw_student,
    glide,
    token_colours,
    trace_models,
    trace_photographs,
    trace_rois,
)
from sparseformers.figures.stages import LAST_PAUSE, MOVING, PAUSE
from sparseformers.rois import initial_grid
from tests.figures.overlaps import check_no_overlap
from tests.figures.pictures import boxes_by_colour, check_boxes, headings, noise, part, picture, tiny_student


class TestPanels:
    def test_a_row_has_the_input_three_stages_and_the_points(self) -> None:
        figure = draw_student([picture(stages=5)])
        assert len(figure.axes) == 5
        stages = ["RoIs, first stage", "RoIs, third stage", "RoIs, last stage"]
        assert headings(figure) == ["Input", *stages, "Sampling points, last stage", "cat.png"]
        names = [[collection.get_gid() for collection in axes.collections] for axes in figure.axes]
        assert names == [[], *[["rois", "centres"]] * 3, ["points"]]

    def test_stages_can_be_chosen_and_none_is_drawn_twice(self) -> None:
        for stages, panels in ((1, 3), (2, 4), (4, 5)):
            titles = headings(draw_student([picture(stages=stages)]))[:-1]
            assert len(titles) == len(set(titles)) == panels
        titles = headings(draw_student([picture(stages=5)], stages=[1, -1, 4]))
        assert titles[1:-2] == ["RoIs, second stage", "RoIs, last stage"]

    def test_boxes_centres_and_points_lie_where_they_should_in_pixels(self) -> None:
        drawn = picture(height=40, width=60, tokens=6, points=4)
        figure = draw_student([drawn], stages=[2])
        check_boxes(figure.axes[1], drawn.rois[2])
        centres = (drawn.rois[2][:, :2] + drawn.rois[2][:, 2:]).numpy() / 2 * [60, 40]
        np.testing.assert_allclose(part(figure.axes[1], "centres").get_offsets(), centres, atol=1e-4)
        points = drawn.points[-1].flatten(0, 1).numpy() * [60, 40]
        np.testing.assert_allclose(part(figure.axes[2], "points").get_offsets(), points, atol=1e-4)

    def test_a_token_keeps_its_colour_in_all_panels_and_pictures(self) -> None:
        colours = token_colours(6)
        figure = draw_student([picture(tokens=6, points=4), picture(tokens=6, points=4, height=90)])
        for row in (figure.axes[:5], figure.axes[5:]):
            for axes in row[1:4]:
                assert set(boxes_by_colour(axes)) == {tuple(colour.round(6)) for colour in colours}
                np.testing.assert_allclose(part(axes, "centres").get_facecolor()[:, :3], colours)
            np.testing.assert_allclose(part(row[4], "points").get_facecolor()[:, :3], colours.repeat(4, axis=0))

    def test_small_boxes_lie_on_top_of_large_ones(self) -> None:
        rois = torch.tensor([[[0.4, 0.4, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], [0.2, 0.2, 0.6, 0.6]]])
        drawn = RoIPicture(torch.zeros(3, 50, 50), rois, (torch.zeros(3, 4, 2),), "a")
        axes = draw_student([drawn]).axes[1]
        widths = [np.ptp(path.vertices[:, 0]) for path in part(axes, "rois").get_paths()]
        assert widths == pytest.approx([50, 20, 5], abs=1e-4)
        np.testing.assert_allclose(part(axes, "rois").get_edgecolor()[:, :3], token_colours(3)[[1, 2, 0]])

    def test_what_reaches_outside_stays_visible_in_the_margin(self) -> None:
        rois = torch.tensor([[[-1.0, 0.2, 3.0, 0.8], [1.5, 1.5, 2.0, 2.0]]])
        drawn = RoIPicture(torch.zeros(3, 50, 100), rois, (torch.tensor([[[-2.0, 0.5]], [[0.5, 9.0]]]),), "a")
        figure = draw_student([drawn])
        left, right = figure.axes[1].get_xlim()
        bottom, top = figure.axes[1].get_ylim()
        assert left < 0 < 100 < right < 110
        assert top < 0 < 50 < bottom < 60
        for corners in boxes_by_colour(figure.axes[1]).values():
            assert left < corners[0] <= corners[2] < right
            assert top < corners[1] <= corners[3] < bottom
        points = part(figure.axes[2], "points").get_offsets()
        assert left < points[0][0] < 0
        assert 50 < points[1][1] < bottom

    def test_only_what_nothing_looks_at_is_dark_and_grey(self) -> None:
        image = torch.tensor([0.9, 0.5, 0.1]).view(3, 1, 1).expand(3, 64, 64)
        rois = torch.tensor([[[0.0, 0.0, 0.25, 0.25]]])
        drawn = RoIPicture(image, rois, (torch.full((1, 4, 2), 0.125),), "a")
        entry, boxes, points = (axes.images[0].get_array() for axes in draw_student([drawn]).axes)
        np.testing.assert_allclose(entry[60, 60], [0.9, 0.5, 0.1], rtol=1e-5)
        for pixels in (boxes, points):
            np.testing.assert_allclose(pixels[8, 8], [0.9, 0.5, 0.1], atol=0.01)
            assert np.ptp(pixels[60, 60]) < 1e-5
            assert pixels[60, 60].max() < 0.25

    def test_rois_that_are_not_finite_are_left_out(self) -> None:
        good = picture()
        rois, points = good.rois.clone(), good.points[-1].clone()
        rois[-1, 0], points[0] = float("nan"), float("nan")
        draw_student([dataclasses.replace(good, rois=rois, points=(points,))]).canvas.draw()


def of_models(**stages_and_tokens: tuple[int, int]) -> ModelsPicture:
    looks = {name: picture(stages=stages, tokens=tokens) for name, (stages, tokens) in stages_and_tokens.items()}
    first = next(iter(looks.values()))
    return ModelsPicture(first.image, first.title, looks)


class TestTrace:
    def test_gives_what_each_model_saw_on_the_same_photograph(self) -> None:
        first, second = tiny_student(tokens=5), tiny_student(tokens=7, iterations=2, size=(48, 48), crop=0.5)
        images = [("a", noise(90, 60)), ("b", noise(40, 80))]
        traced = trace_models({"one": first, "two": second}, iter(images), view="own")
        assert [row.title for row in traced] == ["a", "b"]
        for row in traced:
            assert row.shapes == {"one": (4, 5, 4), "two": (3, 7, 4)}
            assert all(look.image is row.image for look in row.models.values())
        for name, student in (("one", first), ("two", second)):
            alone = trace_photographs(student, images, view="own")
            for row, expected in zip(traced, alone, strict=True):
                assert torch.equal(row.models[name].rois, expected.rois)
                assert row.models[name].frame == expected.frame
        assert traced[0].models["one"].frame != traced[0].models["two"].frame


class TestDraw:
    def test_models_stand_side_by_side_under_their_names(self) -> None:
        figure = draw_models([of_models(v1=(6, 5), ours=(5, 6), still=(1, 4))])
        panels = ["RoIs, first stage", "RoIs, third stage", "RoIs, last stage", "Sampling points, last stage"]
        still = ["RoIs, the only stage", "Sampling points, last stage"]
        assert headings(figure) == ["Input", *panels, *panels, *still, "v1", "ours", "still", "cat.png"]
        names = [[collection.get_gid() for collection in axes.collections] for axes in figure.axes]
        assert names == [[], *([["rois", "centres"]] * 3 + [["points"]]) * 2, ["rois", "centres"], ["points"]]
        places = [axes.get_position(original=True) for axes in figure.axes]
        middles = {text.get_text(): text.get_position()[0] for text in figure.texts}
        for name, panels in (("v1", places[1:5]), ("ours", places[5:9]), ("still", places[9:])):
            assert middles[name] == pytest.approx((panels[0].x0 + panels[-1].x1) / 2, abs=1e-3)

    def test_each_model_has_its_rois_and_colours(self) -> None:
        row = of_models(one=(5, 3), two=(5, 6))
        figure = draw_models([row], stages=[1])
        for axes, name in ((figure.axes[1], "one"), (figure.axes[3], "two")):
            check_boxes(axes, row.models[name].rois[1])

    def test_what_no_model_was_given_is_dark_in_the_input(self) -> None:
        image = torch.full((3, 40, 40), 0.9)
        rois, points = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), (torch.full((1, 4, 2), 0.5),)

        def look(frame: tuple[float, float, float, float]) -> RoIPicture:
            return RoIPicture(image, rois, points, "a", frame)

        row = ModelsPicture(image, "a", {"left": look((0.0, 0.0, 0.5, 1.0)), "top": look((0.0, 0.0, 1.0, 0.5))})
        entry, left, _, top, _ = (axes.images[0].get_array()[..., 0] for axes in draw_models([row]).axes)
        for pixels, bright in ((entry, [1, 1, 1, 0]), (left, [1, 0, 1, 0]), (top, [1, 1, 0, 0])):
            seen = [pixels[place] > 0.5 for place in ((5, 5), (5, 35), (35, 5), (35, 35))]
            assert seen == [bool(part) for part in bright]

    def test_wrong_requests(self) -> None:
        with pytest.raises(ConfigError, match="There is no stage 3: the student has 2"):
            draw_models([of_models(one=(5, 3), two=(2, 3))], stages=[3])
        with pytest.raises(ValueError, match="same models"):
            draw_models([of_models(one=(5, 3)), of_models(two=(5, 3))])
        with pytest.raises(ValueError, match="at least one model"):
            trace_models({}, [("a", noise(90, 60))])

    def test_no_panel_and_no_name_overlaps_another(self) -> None:
        for count, columns in ((1, None), (3, 2)):
            figure = draw_models([of_models(one=(2, 3), two=(1, 2))] * count, columns=columns)
            assert len(figure.axes) == 6 * count
            check_no_overlap(figure)


def moving_rois() -> torch.Tensor:
    images = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    return trace_rois(tiny_student(), images, ["a"])[0].rois  # 4 x 5 x 4


def test_a_panel_for_the_start_and_for_each_iteration_whose_paths_are_fainter_than_boxes() -> None:
    figure = draw_iterations([picture(stages=5, title="cat.png")])
    assert headings(figure) == ["Start", "Iteration 1", "Iteration 2", "Iteration 3", "Iteration 4", "cat.png"]
    names = [[collection.get_gid() for collection in axes.collections] for axes in figure.axes]
    assert names == [["rois", "centres"], *[["rois", "centres", "paths"]] * 4]
    axes = draw_iterations([picture(tokens=4)]).axes[1]
    assert part(axes, "paths").get_alpha() < part(axes, "rois").get_alpha()
    assert headings(draw_iterations([picture(stages=1)]))[:-1] == ["Start"]


def test_boxes_and_paths_lie_where_the_rois_are() -> None:
    drawn = picture(height=40, width=60, tokens=6, stages=3)
    figure = draw_iterations([drawn])
    scale = np.array([60, 40])
    centres = [(rois[:, :2] + rois[:, 2:]).numpy() / 2 * scale for rois in drawn.rois]
    for stage, axes in enumerate(figure.axes):
        check_boxes(axes, drawn.rois[stage])
    for stage in (1, 2):
        paths = part(figure.axes[stage], "paths")
        ends = np.array([path.vertices for path in paths.get_paths()])
        np.testing.assert_allclose(ends[:, 0], centres[stage - 1], atol=1e-4)
        np.testing.assert_allclose(ends[:, 1], centres[stage], atol=1e-4)
        np.testing.assert_allclose([to_rgb(colour) for colour in paths.get_colors()], token_colours(6), atol=1e-6)


def test_several_pictures() -> None:
    assert len(draw_iterations([picture(stages=3), picture(stages=3, height=90)]).axes) == 6
    for draw in (draw_iterations, lambda pictures: next(draw_frames(pictures))):
        with pytest.raises(ValueError, match="same numbers of stages and tokens"):
            draw([picture(stages=3), picture(stages=4)])
    with pytest.raises(ConfigError, match="no picture to draw"):
        draw_iterations([])


class TestGlide:
    def test_is_exactly_at_the_rois_at_each_stage_and_pauses_there(self) -> None:
        rois = moving_rois()
        gliding = glide(rois, frames_per_move=3)
        assert gliding.rois.shape == (1 + 3 * 3, 5, 4)
        assert torch.equal(gliding.rois[::3], rois)
        assert torch.equal(gliding.rois[0], initial_grid(5))
        assert gliding.stages == (0, 1, 1, 1, 2, 2, 2, 3, 3, 3)
        assert gliding.seconds == (PAUSE, MOVING, MOVING, PAUSE, MOVING, MOVING, PAUSE, MOVING, MOVING, LAST_PAUSE)

    def test_a_roi_without_size_and_one_stage_which_has_nothing_to_glide_to(self) -> None:
        rois = torch.tensor([[[0.5, 0.5, 0.5, 0.5]], [[0.2, 0.2, 0.8, 0.8]]])
        gliding = glide(rois)
        assert torch.isfinite(gliding.rois).all()
        assert torch.equal(gliding.rois[-1], rois[-1])
        with pytest.raises(ConfigError, match=r"stay where they are: there is nothing to animate\. Draw a figure instead\."):
            glide(torch.rand(1, 3, 4))
        with pytest.raises(ValueError, match="at least one frame, not 0"):
            glide(moving_rois(), frames_per_move=0)


def test_frames_are_as_large_as_asked_for_and_all_alike() -> None:
    frames = list(draw_frames([picture(height=40, width=60, stages=3)], side=120, frames_per_move=2))
    assert len(frames) == 5
    assert {frame.shape for frame in frames} == {frames[0].shape}
    height, width, _ = frames[0].shape
    assert height % 2 == width % 2 == 0
    assert 120 <= width < 140
    assert (frames[0] != frames[-1]).any()
    one, two = (next(draw_frames([picture(stages=2)] * count, side=80, columns=2)) for count in (1, 2))
    assert two.shape[1] > 1.8 * one.shape[1]
