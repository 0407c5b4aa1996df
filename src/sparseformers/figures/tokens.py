"""The most influential tokens of an embedding, their RoIs and their contents.

Legend: N latent tokens of a student, K of them shown; RoIs are (x1, y1, x2, y2) in [0, 1] of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from sparseformers.errors import ConfigError
from sparseformers.evaluation.attention import token_influence
from sparseformers.figures.data import (
    LONGEST_DRAWN,
    WHOLE,
    Box,
    Photographs,
    ViewKind,
    check_picture,
    inside_rois,
    network_input,
    trace_photographs,
)
from sparseformers.figures.panels import HALO, Array, draw_numbers, draw_photograph, draw_rois, token_colours
from sparseformers.figures.sheet import PanelPlace, check_count, divide, open_sheet, write_under
from sparseformers.model.sparseformer import SparseFormer
from sparseformers.rois import centre_and_size

LARGEST_CUT = 512  # pixels along the longer side of what is cut out, at most


@dataclass(frozen=True, eq=False)
class TokensPicture:
    """An image with a student's most influential tokens on it; raises ValueError for other shapes."""

    image: Tensor  # 3 x H x W in [0, 1], red-green-blue, float32 on the CPU: the picture as it is drawn
    tokens: Tensor  # K, int64: which of the N tokens, the most influential one first
    influence: Tensor  # K: their shares of the embedding; those of all N sum to one
    rois: Tensor  # K x 4, the final ones
    of: int  # N, how many tokens the student has
    title: str
    frame: Box = WHOLE  # the part of ``image`` that the student was given, (x1, y1, x2, y2) in [0, 1] of it

    def __post_init__(self) -> None:
        check_picture(self.image)
        count = len(self.tokens)
        if not count or self.influence.shape != (count,) or self.rois.shape != (count, 4):
            shapes = f"{tuple(self.influence.shape)} and {tuple(self.rois.shape)}"
            raise ValueError(f"{count} tokens need as many influences and RoIs, not {shapes}")

    @property
    def contents(self) -> tuple[Tensor, ...]:
        """The contents of the K RoIs, 3 x h x w in [0, 1]; see :func:`cut_out`."""
        return tuple(cut_out(self.image, roi, self.frame) for roi in self.rois)


def trace_tokens(
    student: SparseFormer, photographs: Photographs, *, count: int = 8, view: ViewKind = "whole", longest: int = LONGEST_DRAWN
) -> list[TokensPicture]:
    """Finds the ``count`` tokens that make most of each photograph's embedding; ConfigError below 1, or without attention."""
    if count < 1:
        raise ConfigError(f"There cannot be {count} tokens on a picture.", "Ask for one or more; 8, for example.")
    pictures = []
    for title, photograph in photographs:
        (traced,) = trace_photographs(student, [(title, photograph)], view=view, longest=longest)
        given = network_input(photograph, student.config.preprocessing, view).pixels.unsqueeze(0)
        influence, order = token_influence(student, given)[0].sort(descending=True, stable=True)
        rois = traced.rois[-1, order[:count]]
        pictures.append(TokensPicture(traced.image, order[:count], influence[:count], rois, len(order), title, traced.frame))
    return pictures


def cut_out(image: Tensor, roi: Tensor, frame: Box = WHOLE) -> Tensor:
    """A RoI's pixels in its aspect ratio: 3 x h x w, at most ``LARGEST_CUT`` a side; the frame's border is repeated outside."""
    if not roi.isfinite().all():
        return image.new_zeros(3, 1, 1)
    height, width = image.shape[-2:]
    _, size = centre_and_size(roi)
    shrink = min(1.0, LARGEST_CUT / max(1.0, size[0].item() * width, size[1].item() * height))
    across = _pixels(roi[0::2], width, shrink).clamp(*_border(frame[0::2], width))
    down = _pixels(roi[1::2], height, shrink).clamp(*_border(frame[1::2], height))
    places = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)  # h x w x 2
    return F.grid_sample(image[None], 2 * places[None] - 1, padding_mode="border", align_corners=False)[0]


def _pixels(span: Tensor, pixels: int, shrink: float) -> Tensor:
    """The centres of pixels along one axis of a RoI, ``shrink`` times as many as the image has there: 2 -> M in [0, 1]."""
    near, far = span.min(), span.max()
    count = max(1, round((far - near).item() * pixels * shrink))
    return near + (torch.arange(count) + 0.5) / count * (far - near)


def _border(span: tuple[float, ...], pixels: int) -> tuple[float, float]:
    """The centres of the first and last pixel inside a part of the image, along one axis."""
    near, far = span[0] + 0.5 / pixels, span[1] - 0.5 / pixels
    return min(near, far), max(near, far)


CAPTION = 0.17  # room for what stands under a panel, in inches: one line
CELLS_IN_PANEL = 4  # contents in the room of a panel, about
MOST_PANELS = 4  # room for contents beside a picture, in panels; with more tokens, contents get smaller
BESIDE = 0.4  # brightness of a photograph outside of all RoIs: the few of them stand out, and it can still be made out
SMALLEST_CONTENT = 0.04  # a side of what is drawn of a content, in inches: a RoI may be a line


def draw_tokens(pictures: Sequence[TokensPicture], *, columns: int | None = None) -> Figure:
    """For each picture the most influential tokens, from 1 on: RoIs, and what is in each; raises as :func:`draw_models`."""
    check_count(len(pictures))
    shown, of = len(pictures[0].tokens), pictures[0].of
    if any((len(picture.tokens), picture.of) != (shown, of) for picture in pictures):
        raise ValueError("the pictures on a sheet must have the same numbers of tokens")
    room = min(MOST_PANELS, math.ceil(shown / CELLS_IN_PANEL))
    heading = f"All {of} tokens" if shown == of else f"The {shown} most influential of {of} tokens"
    images, titles = [picture.image for picture in pictures], [picture.title for picture in pictures]
    headings, groups = ["Their RoIs", "What is inside", *[""] * (room - 1)], [(heading, 1 + room)]
    sheet = open_sheet(images, titles, headings, columns=columns, groups=groups, caption=CAPTION)
    all_colours = token_colours(of)
    for picture, (on_image, *rest) in zip(pictures, sheet.panels, strict=True):
        # RoIs with their ranks, and the share of all of them together.
        colours, (height, width) = all_colours[picture.tokens.numpy()], picture.image.shape[-2:]
        given = inside_rois(torch.tensor([picture.frame]), height=height, width=width)
        inside = inside_rois(picture.rois, height=height, width=width)
        draw_photograph(on_image, picture.image, given * (BESIDE + (1 - BESIDE) * inside))
        draw_rois(on_image, picture.rois, colours, width=width, height=height)
        draw_numbers(on_image, picture.rois, colours, width=width, height=height)
        write_under(on_image, f"together {picture.influence.sum().item():.1%} of the attention")
        # What is in each.
        cells = _cells(sheet.figure, rest, shown)
        for rank, (content, cell) in enumerate(zip(picture.contents, cells, strict=True)):
            axes = _draw_content(sheet.figure, cell, content, colours[rank])
            write_under(axes, f"{rank + 1}: {picture.influence[rank].item():.1%}")
    return sheet.figure


def _cells(figure: Figure, panels: Sequence[Axes], count: int) -> list[PanelPlace]:
    """Places for so many contents in the room of panels side by side, which go."""
    first, last = panels[0].get_position(), panels[-1].get_position()
    for axes in panels:
        axes.remove()
    width, height = figure.get_size_inches()
    room = PanelPlace(first.x0, first.y0, last.x1 - first.x0, first.height)
    return divide(room, count, width=width, height=height, caption=CAPTION)


def _draw_content(figure: Figure, cell: PanelPlace, content: Tensor, colour: Array) -> Axes:
    """The contents of a token's RoI, in its own aspect ratio, at the bottom of its cell, in a frame of its colour."""
    sheet_width, sheet_height = figure.get_size_inches()
    height, width = content.shape[-2:]
    scale = min(cell.width * sheet_width / width, cell.height * sheet_height / height)  # inches a pixel
    wide, high = (max(SMALLEST_CONTENT, side * scale) for side in (width, height))
    left = cell.left + (cell.width - wide / sheet_width) / 2
    axes = figure.add_axes((left, cell.bottom, wide / sheet_width, high / sheet_height))
    axes.imshow(content.clamp(0, 1).permute(1, 2, 0).numpy(), aspect="auto", interpolation="antialiased")
    axes.set_axis_off()
    frame = Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=colour, linewidth=2.0, clip_on=False)
    frame.set_path_effects([withStroke(linewidth=3.0, foreground=HALO)])
    axes.add_patch(frame)
    return axes
