"""A photograph as the page and the networks need it; the file itself is not kept."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data import evaluation_view, from_bytes
from sparseformers.data.images import decode

DISPLAY_SIDE = 1600
"""Longer side of what the page shows of a photograph, in pixels, at most."""
THUMBNAIL_SIDE = 160
"""Longer side of a thumbnail, in pixels, at most."""

Region = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in [0, 1] of a photograph."""


@dataclass(frozen=True)
class View:
    """A photograph as a network is given it."""

    pixels: Tensor
    """3 x H x W bytes."""
    seen: Region
    """Which part of the photograph that is."""

    def image(self) -> Tensor:
        """3 x H x W in [0, 1]."""
        return from_bytes(self.pixels)


@dataclass(frozen=True)
class Photograph:
    """What is kept of a photograph: a megabyte at most, however large its file is."""

    name: str
    """What to call it."""
    width: int
    """Of the whole photograph, upright, in pixels."""
    height: int
    """Of the whole photograph, upright, in pixels."""
    display: bytes
    """A JPEG for the page."""
    views: Mapping[PreprocessingConfig, View]
    """As the networks are given it."""


def prepare(source: Path | BinaryIO, name: str, preprocessings: Iterable[PreprocessingConfig], *, most_pixels: int) -> Photograph:
    """Decodes a photograph once, and keeps what is shown and what networks are given of it.

    Args:
        source: a file, or its content in memory.
        name: what to call it.
        preprocessings: those of the networks that are to see it.
        most_pixels: a larger one is not decoded.

    Raises:
        UnreadableImageError: for what cannot be decoded.
    """
    image = decode(source, Path(name), most_pixels=most_pixels)
    views = {}
    for preprocessing in preprocessings:
        view = evaluation_view(preprocessing)
        views[preprocessing] = View(view.pixels(image), view.frame(height=image.height, width=image.width))
    return Photograph(name, image.width, image.height, jpeg(image, DISPLAY_SIDE), views)


def thumbnail(source: Path | BinaryIO, name: str, *, most_pixels: int) -> bytes:
    """A small JPEG of a photograph.

    Raises:
        UnreadableImageError: for what cannot be decoded.
    """
    # A JPEG file is decoded at a fraction of its size, which is enough here and much faster.
    return jpeg(decode(source, Path(name), at_least=THUMBNAIL_SIDE, most_pixels=most_pixels), THUMBNAIL_SIDE)


def jpeg(image: Image.Image, longest: int) -> bytes:
    """An RGB image as JPEG, reduced where a side is longer than ``longest``; nothing of its metadata goes with it."""
    scale = longest / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    memory = io.BytesIO()
    _bare(image).save(memory, "JPEG", quality=88)
    return memory.getvalue()


def _bare(image: Image.Image) -> Image.Image:
    """The pixels alone: Pillow hands on colour profiles and comments of the file."""
    bare = image.copy()
    bare.info.clear()
    return bare
