"""Photographs as a student is given them, and what it saw of them put back on the photograph, in the photograph's own shape."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data import evaluation_view
from sparseformers.data.transforms import from_bytes
from sparseformers.figures.data import WHOLE, Box, FocusPicture, placed, trace_focus
from sparseformers.model.sparseformer import SMALLEST_SIDE, SparseFormer

ViewKind = Literal["whole", "own"]
"""``whole``: the student is given the whole photograph in its own shape, at as many pixels as it was made for. ``own``: what it
sees when it embeds or is evaluated, often a central crop; what lies outside of it is drawn dark."""

LONGEST_DRAWN = 640
"""Pixels along the longer side of a photograph as it is drawn, at most: more than a panel has."""

Photograph = tuple[str, Image.Image]
"""A title and a decoded RGB image of any size."""


class View(NamedTuple):
    """What a student is given of a photograph."""

    pixels: Tensor
    """3 x H x W in [0, 1]."""
    frame: Box
    """Where that lies in the photograph, (x1, y1, x2, y2) in [0, 1] of it."""


def trace_photographs(
    student: SparseFormer, photographs: Iterable[Photograph], *, view: ViewKind = "whole", longest: int = LONGEST_DRAWN
) -> list[FocusPicture]:
    """Looks at photographs with a student and notes where it looked, in the coordinates of the photographs.

    Args:
        student: any SparseFormer, on any device.
        photographs: taken one after the other, so that a generator need not hold them all.
        view: what the student is given of them.
        longest: pixels along the longer side of a photograph as it is drawn, at most.

    Returns:
        One picture per photograph, drawn in the photograph's own aspect ratio.
    """
    return [
        look_at(student, image, drawn_pixels(image, longest), title, view=view)  # each has its own shape: there is no batch
        for title, image in photographs
    ]


def look_at(student: SparseFormer, photograph: Image.Image, drawn: Tensor, title: str, *, view: ViewKind) -> FocusPicture:
    """One photograph, already made ready for drawing; as :func:`trace_photographs`."""
    seen = view_of(photograph, student.config.preprocessing, view)
    (picture,) = trace_focus(student, seen.pixels.unsqueeze(0), [title])
    return placed(picture, drawn, seen.frame)


def view_of(photograph: Image.Image, preprocessing: PreprocessingConfig, kind: ViewKind) -> View:
    """What a network of that preprocessing is given of a photograph."""
    if kind == "own":
        own = evaluation_view(preprocessing)
        return View(own(photograph), own.frame(height=photograph.height, width=photograph.width))
    size = whole_size(photograph.height, photograph.width, preprocessing.size)
    # Squashed to its own shape, which changes nothing but its size.
    return View(evaluation_view(dataclasses.replace(preprocessing, size=size, crop=1.0, resize="squash"))(photograph), WHOLE)


def whole_size(height: int, width: int, made_for: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a photograph at as many pixels as a network was made for, each at least what a student takes."""
    scale = math.sqrt(made_for[0] * made_for[1] / (height * width))
    return max(SMALLEST_SIDE, round(height * scale)), max(SMALLEST_SIDE, round(width * scale))


def drawn_pixels(photograph: Image.Image, longest: int = LONGEST_DRAWN) -> Tensor:
    """A photograph as it is drawn: 3 x H x W in [0, 1], no side longer than ``longest``, in its own aspect ratio."""
    from torchvision.transforms.v2 import functional

    scale = min(1.0, longest / max(photograph.size))
    size = (max(1, round(photograph.width * scale)), max(1, round(photograph.height * scale)))
    shown = photograph if size == photograph.size else photograph.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return from_bytes(functional.pil_to_tensor(shown)).to(torch.float32)
