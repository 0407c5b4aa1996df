"""A student's map of where its teacher would look, beside the teacher's own attention, and the leaves that it leads to.

Legend: N leaves, h x w the student's map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseformers.config import MixedResolutionConfig
from sparseformers.errors import ConfigError
from sparseformers.evaluation.attention import AttendingTeacher, measure_map
from sparseformers.figures.data import (
    LONGEST_DRAWN,
    RoIPicture,
    TitledImage,
    ViewKind,
    drawn_pixels,
    inside_frame,
    network_input,
    trace_rois,
)
from sparseformers.figures.density import CAPTION, TIMES, draw_scale, heat_over
from sparseformers.figures.panels import draw_cells, draw_photograph
from sparseformers.figures.sheet import open_sheet, write_under
from sparseformers.model.selector import shares_on
from sparseformers.model.sparseformer import SparseFormer
from sparseformers.teachers import Teacher

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADINGS = ("Input", "The glance", "The student's map", "The teacher's attention", "The leaves, as they are read")


@dataclass(frozen=True, eq=False)
class MapPicture:
    """An image with a student's map and leaves, and its teacher's attention."""

    traced: RoIPicture  # with the map
    attended: Tensor  # the share of the teacher's attention in each of its patches, of sum 1
    front: MixedResolutionConfig


def mapping_front(student: SparseFormer) -> MixedResolutionConfig:
    """The front of a student that has a map; raises ConfigError for one without."""
    front = student.config.focusing
    if isinstance(front, MixedResolutionConfig):
        return front
    problem = f"This student has no map of where to look: its front is '{front.kind}'."
    raise ConfigError(problem, "Draw another figure, or a student that was made with --front mixed.")


def trace_map(
    student: SparseFormer,
    teacher: Teacher,
    photographs: Iterable[TitledImage],
    *,
    view: ViewKind = "whole",
    longest: int = LONGEST_DRAWN,
) -> list[MapPicture]:
    """Map and attention on photographs of any shapes, whose same part both see; ConfigError for a student without a map."""
    mapping_front(student)
    attending, pictures = AttendingTeacher(teacher), []
    for title, photograph in photographs:
        seen = network_input(photograph, student.config.preprocessing, view)
        (picture,) = trace_maps(student, attending, seen.pixels.unsqueeze(0), [title])
        traced = picture.traced.placed(drawn_pixels(photograph, longest), seen.frame)
        pictures.append(dataclasses.replace(picture, traced=traced))
    return pictures


def trace_maps(student: SparseFormer, teacher: AttendingTeacher, images: Tensor, titles: Sequence[str]) -> list[MapPicture]:
    """The same for images B x 3 x H x W in [0, 1], one title each, which the teacher sees squashed to its size."""
    front, given = mapping_front(student), images.to(next(student.parameters()).device)
    if given.shape[-2:] != teacher.size:
        given = F.interpolate(given, teacher.size, mode="bilinear", antialias=True)
    with torch.no_grad():
        attended = teacher.eval()(given).attention_map.cpu()
    traced = trace_rois(student, images, titles)
    return [MapPicture(picture, own, front) for picture, own in zip(traced, attended, strict=True)]


def draw_map(pictures: Sequence[MapPicture], *, columns: int | None = None) -> Figure:
    """A row of panels for each picture: the input, the glance, the student's map, the teacher's attention, the leaves.

    Both maps are on the student's grid, in units of an even spread; under the student's stands how they agree. Each leaf has as
    many pixels as are read of it. Raises ConfigError as all sheets.
    """
    images, titles = [each.traced.image for each in pictures], [each.traced.title for each in pictures]
    sheet = open_sheet(images, titles, HEADINGS, columns=columns, caption=CAPTION)
    for picture, (whole, glance, ours, theirs, leaves) in zip(pictures, sheet.panels, strict=True):
        traced, image, frame = picture.traced, picture.traced.image, picture.traced.frame
        assert traced.attention_map is not None
        height, width = image.shape[-2:]
        given, side = inside_frame(traced, height=height, width=width), picture.front.patch_size
        down, across = (cells * side << picture.front.glance for cells in picture.front.start)
        draw_photograph(whole, image)
        draw_scale(whole, height=CAPTION)
        draw_photograph(glance, as_read(image, torch.tensor([frame]), (down, across)), given)
        shares, attended = traced.attention_map[None], picture.attended[None]
        on_grid = shares_on(attended, (shares.shape[1], shares.shape[2]))
        for axes, (heat,) in ((ours, shares), (theirs, on_grid)):
            draw_photograph(axes, heat_over(image, heat, frame))
            write_under(axes, f"at most {heat.max().item() * heat.numel():.3g} {TIMES} even")
        agreement = measure_map(shares, attended)
        write_under(ours, f"{agreement.overlap:.0%} of the heaviest third, {agreement.divergence:.2f} nats away", line=1)
        draw_photograph(leaves, as_read(image, traced.rois[-1], (side, side)), given)
        draw_cells(leaves, traced.rois[-1], width=width, height=height)
    return sheet.figure


def as_read(image: Tensor, rois: Tensor, pixels: tuple[int, int]) -> Tensor:
    """An image (3 x H x W in [0, 1]) with each of N x 4 RoIs as coarse as so many rows and columns of pixels can show it."""
    height, width = image.shape[-2:]
    read = image.clone()
    for x1, y1, x2, y2 in (rois * torch.tensor([width, height, width, height])).round().int().clamp_min(0).tolist():
        part = image[None, :, y1:y2, x1:x2]
        if part.numel():
            coarse = F.interpolate(part, pixels, mode="bilinear", antialias=True)
            read[:, y1:y2, x1:x2] = F.interpolate(coarse, part.shape[-2:], mode="nearest-exact")[0]
    return read
