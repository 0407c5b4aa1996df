"""How the RoIs move over the image, one panel per focusing iteration: the paper's Figures 1 and 2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sparseformers.figures.colours import token_colours
from sparseformers.figures.data import FocusPicture, inside_frame, inside_rois
from sparseformers.figures.panels import draw_paths, draw_photograph, draw_rois
from sparseformers.figures.sheet import check_count, open_sheet
from sparseformers.figures.stages import iteration_name
from sparseformers.rois import centre_and_size


def centre_paths(rois: Tensor) -> Tensor:
    """Where each RoI's centre goes from stage to stage.

    Args:
        rois: S x N x 4.

    Returns:
        (S-1) x N x 2 x 2: for each iteration and token the centre (x, y) before it, then after it.
    """
    centres, _ = centre_and_size(rois)  # S x N x 2
    return torch.stack([centres[:-1], centres[1:]], dim=2)


def draw_iterations(pictures: Sequence[FocusPicture], *, columns: int | None = None) -> Figure:
    """A panel for the start and one for each focusing iteration: the RoIs, and faintly the path of each centre since the last.

    A token keeps its colour in all panels. A picture is dark and grey where no RoI is.

    Args:
        pictures: 1 to 64, all of the same student.
        columns: pictures side by side; by default as many as make the sheet about square.

    Raises:
        ConfigError: for no picture or more than 64, or less than one column.
        ValueError: if the pictures differ in their numbers of stages or tokens.
    """
    check_count(len(pictures))
    stages, tokens, _ = pictures[0].rois.shape
    if any(picture.rois.shape != pictures[0].rois.shape for picture in pictures):
        raise ValueError("the pictures on a sheet must have the same numbers of stages and tokens")
    images, titles = [picture.image for picture in pictures], [picture.title for picture in pictures]
    figure, rows = open_sheet(images, titles, [iteration_name(stage) for stage in range(stages)], columns=columns)
    colours = token_colours(tokens)
    for picture, panels in zip(pictures, rows, strict=True):
        height, width = picture.image.shape[-2:]
        given, paths = inside_frame(picture, height=height, width=width), centre_paths(picture.rois)
        for stage, axes in enumerate(panels):
            rois = picture.rois[stage]
            draw_photograph(axes, picture.image, given * inside_rois(rois, height=height, width=width))
            draw_rois(axes, rois, colours, width=width, height=height)
            if stage:
                before, after = paths[stage - 1].unbind(dim=1)
                draw_paths(axes, before, after, colours, width=width, height=height)
    return figure
