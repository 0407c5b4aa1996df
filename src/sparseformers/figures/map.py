"""Maps beside the teacher's attention: of where sampling points fall, and of where a student expects its teacher to look.

Legend: S stages with sampling points, N latent tokens (leaves), P sampling points per token, h x w the grid of a map: the
teacher's patches, or the student's own. Maps are of what the networks were given, and sum to one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sparseformers.config import MixedResolutionConfig
from sparseformers.errors import ConfigError
from sparseformers.evaluation.attention import AttendingTeacher, TeacherAttention, measure_map, rank_correlation
from sparseformers.figures.data import (
    LONGEST_DRAWN,
    WHOLE,
    Box,
    Photographs,
    RoIPicture,
    ViewKind,
    check_picture,
    drawn_pixels,
    inside_frame,
    network_input,
    trace_rois,
)
from sparseformers.figures.panels import DIM, LUMA, draw_cells, draw_photograph
from sparseformers.figures.sheet import FAINT_INK, check_count, open_sheet, write_under
from sparseformers.model.selector import shares_on
from sparseformers.model.sparseformer import SparseFormer
from sparseformers.rois import centre_and_size
from sparseformers.teachers import Teacher

SMALLEST_BOX = 1e-3  # a sampling point's box, as a share of the image, in a RoI that has no size
RHO, MINUS, EN_DASH = "\N{GREEK SMALL LETTER RHO}", "\N{MINUS SIGN}", "\N{EN DASH}"
CAPTION = 0.3  # room for what stands under a panel, in inches: two lines

COLOURS = "cividis"  # matplotlib's map for all kinds of colour vision (Nuñez et al., 2018): dark blue, grey, yellow, ever lighter
TIMES = "\N{MULTIPLICATION SIGN}"
LIGHTEST = 3.0  # value of the lightest colour, in units of an even spread, in all maps


@dataclass(frozen=True, eq=False)
class DensityPicture:
    """An image with a student's sampling points and its teacher's attention on its patches; ValueError for other shapes."""

    image: Tensor  # 3 x H x W in [0, 1], red-green-blue, float32 on the CPU: the picture as it is drawn
    points: Tensor  # S x h x w: the share of each stage's sampling points on each patch, the last that of the final RoIs
    last: Tensor  # h x w: the share of each patch in the attention of the teacher's last block
    rollout: Tensor  # h x w: the share of each patch by attention rollout through all blocks of the teacher
    title: str
    frame: Box = WHOLE  # the part of ``image`` that the networks were given, (x1, y1, x2, y2) in [0, 1] of it

    def __post_init__(self) -> None:
        check_picture(self.image)
        if self.points.ndim != 3 or not len(self.points):
            raise ValueError(f"the densities of a picture must be S x h x w, not {tuple(self.points.shape)}")
        if not self.points.shape[1:] == self.last.shape == self.rollout.shape:
            raise ValueError("the maps of a picture must have the same rows and columns")


def trace_density(
    student: SparseFormer, teacher: Teacher, photographs: Photographs, *, view: ViewKind = "whole", longest: int = LONGEST_DRAWN
) -> list[DensityPicture]:
    """Sampling points beside the teacher's attention, on photographs of any shapes; both networks see the same part of each."""
    attention, own = TeacherAttention(teacher), student.config.preprocessing
    pictures = []
    for title, photograph in photographs:
        seen = network_input(photograph, own, view)
        finer = network_input(photograph, dataclasses.replace(own, size=attention.size), view)
        (traced,) = trace_rois(student, seen.pixels.unsqueeze(0), [title])
        stages = traced.rois[-len(traced.points) :]  # the last ones: v1 moves its RoIs once before the first points
        densities = [density(rois, points, *attention.grid) for rois, points in zip(stages, traced.points, strict=True)]
        (last,), (rollout,) = attention(finer.pixels.unsqueeze(0))
        drawn = drawn_pixels(photograph, longest)
        pictures.append(DensityPicture(drawn, torch.stack(densities), last, rollout, title, seen.frame))
    return pictures


def density(rois: Tensor, points: Tensor, rows: int, columns: int) -> Tensor:
    """The share of a stage's sampling points that falls on each cell of a grid (rows x columns) over the image, float32.

    A point (of N x P x 2) counts in a box of its own part of its RoI (of N x 4), so that RoIs that tile the image evenly give an
    even density on any grid. A point outside of the image counts at the border; one that is not finite does not count. Shares sum
    to one (or are zero without any point), in steps of a ten-thousandth of an even spread, so that what differs by rounding alone
    is equal.
    """
    _, size = centre_and_size(rois)
    boxes = (size / math.sqrt(points.shape[-2])).unsqueeze(-2).expand_as(points)
    places = torch.cat([points.float(), boxes], dim=-1).flatten(0, 1).double()  # NP x (x, y, width, height)
    x, y, width, height = places[places.isfinite().all(dim=-1)].unbind(dim=-1)
    shares = _shares(y, height, rows).T @ _shares(x, width, columns) / max(1, len(x))
    return shares.mul(rows * columns).round(decimals=4).div(rows * columns).float()


def _shares(position: Tensor, length: Tensor, cells: int) -> Tensor:
    """The share of intervals around M positions in each cell of an axis: M and M -> M x cells; rows sum to one, ends included."""
    edges = torch.arange(1, cells, dtype=position.dtype) / cells  # between the cells
    length = length.clamp_min(SMALLEST_BOX).unsqueeze(-1)
    below = ((edges - position.clamp(0, 1).unsqueeze(-1)) / length + 0.5).clamp(0, 1)  # M x (cells-1): what is before each edge
    return F.pad(below, (1, 0)).neg() + F.pad(below, (0, 1), value=1.0)


def draw_density(pictures: Sequence[DensityPicture], *, columns: int | None = None) -> Figure:
    """A row of panels for each picture: the input, the density of sampling points at each stage, the teacher's attention.

    Colours are in units of an even spread, the same in all maps. Under each map stands its largest value, and under each density
    its rank correlations with the teacher's maps. Raises ConfigError for no picture, more than 64 or less than one column, and
    ValueError if the pictures differ in their number of stages.
    """
    check_count(len(pictures))
    stages = len(pictures[0].points)
    if any(len(picture.points) != stages for picture in pictures):
        raise ValueError("the pictures on a sheet must have the same number of stages")
    names = ["Points 1"] if stages == 1 else [*(f"Points {stage}" for stage in range(1, stages)), "Last points"]
    images, titles = [picture.image for picture in pictures], [picture.title for picture in pictures]
    headings = ["Input", *names, "Attention, last block", "Attention rollout"]
    groups = [("Where sampling points fall", stages), ("What the teacher attends to", 2)]
    sheet = open_sheet(images, titles, headings, columns=columns, groups=groups, caption=CAPTION)
    for picture, panels in zip(pictures, sheet.panels, strict=True):
        draw_photograph(panels[0], picture.image)
        draw_scale(panels[0], height=CAPTION)
        for axes, heat in zip(panels[1:], [*picture.points, picture.last, picture.rollout], strict=True):
            draw_photograph(axes, heat_over(picture.image, heat, picture.frame))
            write_under(axes, f"at most {heat.max().item() * heat.numel():.3g} {TIMES} even")
        for axes, points in zip(panels[1:], picture.points, strict=False):
            last, rollout = (signed(rank_correlation(points, theirs)) for theirs in (picture.last, picture.rollout))
            write_under(axes, f"{RHO} {last} last block, {rollout} rollout", line=1)
    return sheet.figure


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
    student: SparseFormer, teacher: Teacher, photographs: Photographs, *, view: ViewKind = "whole", longest: int = LONGEST_DRAWN
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


def signed(correlation: float) -> str:
    """Two decimals with a sign; a dash where there is no number."""
    return EN_DASH if math.isnan(correlation) else f"{correlation:+.2f}".replace("-", MINUS)


def heat_over(image: Tensor, heat: Tensor, frame: Box) -> Tensor:
    """A grey photograph (3 x H x W in [0, 1]) under the colours of a map (h x w of ``frame``), smoothed; dark outside of it."""
    # The centres of pixels, H x W x 2: (x, y) in [0, 1] inside of the frame.
    (height, width), (x1, y1, x2, y2) = image.shape[-2:], frame
    across = ((torch.arange(width) + 0.5) / width - x1) / (x2 - x1)
    down = ((torch.arange(height) + 0.5) / height - y1) / (y2 - y1)
    places = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
    scaled = (heat.float() * heat.numel() / LIGHTEST).clamp(0, 1)  # before smoothing, which overshoots around high peaks
    grid = (2 * places - 1).unsqueeze(0)
    smooth = F.grid_sample(scaled[None, None], grid, mode="bicubic", padding_mode="border", align_corners=False)[0, 0]
    colours = colormaps[COLOURS](smooth.clamp(0, 1).numpy())[..., :3]
    coloured = torch.from_numpy(colours).float().movedim(-1, 0)
    grey = (image.clamp(0, 1) * image.new_tensor(LUMA).view(3, 1, 1)).sum(dim=0).expand(3, -1, -1)
    shaded = (coloured * (0.55 + 0.45 * grey) + 0.1 * grey).clamp_max(1)
    inside = ((places >= 0) & (places <= 1)).all(dim=-1)
    return torch.where(inside, shaded, DIM * grey)


def draw_scale(axes: Axes, *, height: float) -> None:
    """A scale of the colours in the room of that height (in inches) under a panel."""
    panel = axes.bbox.height / axes.figure.dpi  # in inches
    scale = axes.inset_axes((0.15, -0.45 * height / panel, 0.7, 0.3 * height / panel))
    scale.imshow(np.linspace(0, 1, 128)[None], cmap=COLOURS, aspect="auto", extent=(0, LIGHTEST, 0, 1))
    scale.set_yticks([])
    scale.set_xticks([0, 1, LIGHTEST], ["none", "even", f"{LIGHTEST:g} {TIMES} even"])
    scale.tick_params(labelsize=6.5, labelcolor=FAINT_INK, color=FAINT_INK, length=1.5, width=0.5, pad=1)
    scale.spines[:].set_visible(False)
