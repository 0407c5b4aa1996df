"""Features as colours: the teacher's patches beside the student's few tokens, and its map of features, on the same axes.

Legend: B images, D width, h x w cells of the grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from sparseformers.errors import ConfigError
from sparseformers.figures.data import LONGEST_DRAWN, Box, Photographs, ViewKind, drawn_pixels, network_input
from sparseformers.figures.panels import draw_photograph
from sparseformers.figures.sheet import open_sheet
from sparseformers.model.sparseformer import SparseFormer
from sparseformers.modes import evaluation_mode
from sparseformers.teachers import Teacher

AXES = 3  # principal axes: one each for red, green and blue
TAILS = 0.02  # share of the teacher's patches that saturate at either end of an axis, against odd ones
HEADINGS = ("Input", "Teacher's patches", "Student's tokens", "Its feature map")  # the last where it has a read-out


@dataclass(frozen=True, eq=False)
class PCAPicture:
    """An image with the features of teacher and student in the same colours, on the same grid."""

    image: Tensor  # 3 x H x W in [0, 1], red-green-blue
    teacher: Tensor  # 3 x h x w in [0, 1]: where each cell's teacher features lie on the three axes
    student: Tensor  # 3 x h x w in [0, 1]: the same of the student's tokens, splatted onto the grid
    cosine: float  # mean over the cells of the centred cosine of its map, or else its tokens, in all D channels; in [-1, 1]
    title: str
    dense: Tensor | None = None  # 3 x h x w in [0, 1]: the same of the map that its read-out gives; None without one


@dataclass(frozen=True, eq=False)
class PrincipalColours:
    """A map from features to colours, fitted once and used for all."""

    mean: Tensor  # D
    axes: Tensor  # D x 3, orthonormal, the axis of the greatest variance first; float64
    low: Tensor  # 3: what is black (or 0 of a colour) on each axis
    high: Tensor  # 3: what is full colour

    @classmethod
    def of(cls, features: Tensor) -> PrincipalColours:
        """The principal axes of B x D x h x w features and their range; each axis has its greatest entry positive."""
        rows = features.double().transpose(0, 1).flatten(1).T  # M x D
        mean = rows.mean(dim=0)
        centred = rows - mean
        _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        axes = vectors[:, -AXES:].flip(-1)
        greatest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
        axes = axes * greatest.sign()
        low, high = torch.quantile(centred @ axes, torch.tensor([TAILS, 1 - TAILS]).double(), dim=0)
        return cls(mean, axes, low, high)

    def __call__(self, features: Tensor) -> Tensor:
        """B x D x h x w -> B x 3 x h x w in [0, 1]; grey along an axis on which nothing differed."""
        places = torch.einsum("bdhw,da->bahw", features.double() - self.mean[:, None, None], self.axes)
        span = (self.high - self.low)[:, None, None]
        colours = (places - self.low[:, None, None]) / span.clamp_min(1e-12)
        return torch.where(span > 1e-12, colours, 0.5).clamp(0, 1).float()


def trace_pca(
    student: SparseFormer, teacher: Teacher, photographs: Photographs, *, view: ViewKind = "whole", longest: int = LONGEST_DRAWN
) -> list[PCAPicture]:
    """Features of both on the teacher's grid, on the three principal axes of its patches (normed) of all photographs together.

    A teacher takes images of one size: a whole photograph is squashed to it, and the grid of features stretched back. Student and
    teacher are on one device and run in evaluation mode (restored afterwards). Raises ConfigError if the student's tokens are
    not as wide as the teacher's.
    """
    own = teacher.preprocessing
    given = own if view == "own" else dataclasses.replace(own, crop=1.0, resize="squash")
    inputs, titles, drawn = [], [], []
    for title, photograph in photographs:
        seen = network_input(photograph, given, "own")
        inputs.append(seen.pixels)
        titles.append(title)
        drawn.append(_part(drawn_pixels(photograph, longest), seen.frame))
    images = torch.stack(inputs).to(next(student.parameters()).device)
    with evaluation_mode(student, teacher), torch.inference_mode():
        _, patches = teacher.embedding_and_tokens(images)
        output = student(images, grid=teacher.grid)
        splatted = output.to_grid(teacher.grid)
    if splatted.shape[1] != patches.shape[1]:
        problem = f"The student's tokens have {splatted.shape[1]} channels and the teacher's {patches.shape[1]}."
        raise ConfigError(problem, "Features can only share colours with those of the teacher that the student was made from.")
    # A map of another layer than the teacher's last has no colours there.
    reads = student.read_out is not None and student.read_out.layer == -1
    of_teacher, of_student, of_map = (tensor.float().cpu().clone() for tensor in (patches, splatted, output.dense))
    colours = PrincipalColours.of(of_teacher)
    centre = colours.mean.float()[:, None, None]
    cosines = F.cosine_similarity((of_map if reads else of_student) - centre, of_teacher - centre, dim=1)
    maps = colours(of_map) if reads else [None] * len(drawn)
    columns = (drawn, colours(of_teacher), colours(of_student), cosines.mean(dim=(1, 2)).tolist(), titles, maps)
    return [PCAPicture(*row) for row in zip(*columns, strict=True)]


def draw_pca(pictures: Sequence[PCAPicture], *, columns: int | None = None) -> Figure:
    """A row for each picture: input, the teacher's patches, the student's tokens and map on its grid, in the same colours."""
    images = [picture.image for picture in pictures]
    titles = [f"{picture.title} (cosine {picture.cosine:.2f})" for picture in pictures]
    reads = any(picture.dense is not None for picture in pictures)
    figure, panels = open_sheet(images, titles, HEADINGS if reads else HEADINGS[:-1], columns=columns)
    for picture, (first, *others) in zip(pictures, panels, strict=True):
        draw_photograph(first, picture.image)
        maps = [cells for cells in (picture.teacher, picture.student, picture.dense) if cells is not None]
        for axes, cells in zip(others, maps, strict=True):
            draw_photograph(axes, F.interpolate(cells[None], picture.image.shape[-2:], mode="nearest-exact")[0])
    return figure


def _part(image: Tensor, frame: Box) -> Tensor:
    """The part of an image (3 x H x W) in a frame, to the nearest pixel."""
    height, width = image.shape[-2:]
    left, top, right, bottom = (round(edge * side) for edge, side in zip(frame, (width, height) * 2, strict=True))
    return image[:, top : max(bottom, top + 1), left : max(right, left + 1)]
