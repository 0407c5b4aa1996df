from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from sparseformers.errors import ConfigError
from sparseformers.figures import centre_paths, draw_iterations, token_colours, trace_rois
from sparseformers.rois import centre_and_size
from tests.figures.pictures import picture, tiny_student
from tests.figures.test_figure import boxes_by_colour, headings, part


def test_paths_lead_from_each_centre_to_the_next() -> None:
    (traced,) = trace_rois(tiny_student(), torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0)), ["a"])
    centres, _ = centre_and_size(traced.rois)
    paths = centre_paths(traced.rois)
    assert paths.shape == (3, 5, 2, 2)
    assert torch.equal(paths[:, :, 0], centres[:-1])
    assert torch.equal(paths[:, :, 1], centres[1:])
    assert (paths[:, :, 0] != paths[:, :, 1]).any()


def test_a_panel_for_the_start_and_for_each_iteration() -> None:
    figure = draw_iterations([picture(stages=5, title="cat.png")])
    assert headings(figure) == ["Start", "Iteration 1", "Iteration 2", "Iteration 3", "Iteration 4", "cat.png"]
    names = [[collection.get_gid() for collection in axes.collections] for axes in figure.axes]
    assert names == [["rois", "centres"], *[["rois", "centres", "paths"]] * 4]


def test_boxes_and_paths_lie_where_the_rois_are() -> None:
    drawn = picture(height=40, width=60, tokens=6, stages=3)
    figure = draw_iterations([drawn])
    scale = np.array([60, 40])
    centres = [(rois[:, :2] + rois[:, 2:]).numpy() / 2 * scale for rois in drawn.rois]
    for stage, axes in enumerate(figure.axes):
        boxes = boxes_by_colour(axes)
        for colour, roi in zip(token_colours(6), drawn.rois[stage], strict=True):
            np.testing.assert_allclose(boxes[tuple(colour.round(6))], roi.numpy() * np.tile(scale, 2), atol=1e-4)
    for stage in (1, 2):
        paths = part(figure.axes[stage], "paths")
        ends = np.array([path.vertices for path in paths.get_paths()])
        np.testing.assert_allclose(ends[:, 0], centres[stage - 1], atol=1e-4)
        np.testing.assert_allclose(ends[:, 1], centres[stage], atol=1e-4)
        np.testing.assert_allclose([to_rgb(colour) for colour in paths.get_colors()], token_colours(6), atol=1e-6)


def test_paths_are_fainter_than_boxes() -> None:
    axes = draw_iterations([picture(tokens=4)]).axes[1]
    assert part(axes, "paths").get_alpha() < part(axes, "rois").get_alpha()


def test_one_stage_is_one_panel() -> None:
    assert headings(draw_iterations([picture(stages=1)]))[:-1] == ["Start"]


def test_several_pictures() -> None:
    assert len(draw_iterations([picture(stages=3), picture(stages=3, height=90)]).axes) == 6
    with pytest.raises(ValueError, match="same numbers of stages and tokens"):
        draw_iterations([picture(stages=3), picture(stages=4)])
    with pytest.raises(ConfigError, match="no picture to draw"):
        draw_iterations([])
