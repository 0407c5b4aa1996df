"""Image files: decoding them to 8-bit RGB, and listing those that are skipped."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from sparseformers.data.places import DEAD_LINK
from sparseformers.files import replacing

MOST_PIXELS = 150_000_000  # larger images are not decoded by default: a small file can unpack to all of the memory
PILLOWS_MOST_PIXELS = 178_956_970  # Pillow decodes no larger images itself
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM", "HEIF")
"""Formats that are decoded, whatever the name says; Pillow's others may run external programs."""


class UnreadableImageError(Exception):
    """An image that cannot be decoded; training goes on without it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[UnreadableImageError], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


def read_image(path: Path, *, at_least: int | None = None, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Decodes an image file to 8-bit RGB, upright, without transparency (on white), the first of several frames or pages.

    Grey values of more than 8 bits are scaled. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (faster) as long as both sides
    keep ``at_least`` pixels. Raises UnreadableImageError for a file that is missing, empty, truncated, damaged or no image, or
    has more than ``most_pixels`` (height times width).
    """
    return decode(path, path, at_least=at_least, most_pixels=most_pixels)


def decode(
    source: Path | BinaryIO,
    path: Path,
    *,
    at_least: int | None = None,
    most_pixels: int = MOST_PIXELS,
    convert: Callable[[Image.Image], Image.Image] | None = None,
) -> Image.Image:
    """As :func:`read_image`, from a file or memory; ``convert`` makes the result from the upright image in its own mode."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata once per file and worker; what matters of it is raised.
            warnings.simplefilter("ignore")
            with Image.open(source, formats=_known_formats()) as image:
                width, height = image.size
                if width * height > most_pixels:
                    most = f"{most_pixels / 1e6:g} million" if most_pixels >= 1_000_000 else f"{most_pixels:,}"
                    raise UnreadableImageError(path, f"too large: {width} x {height} pixels, at most {most}")
                if at_least is not None and isinstance(image, JpegImageFile):
                    image.draft(None, (at_least, at_least))
                image.load()
                with contextlib.suppress(Exception):  # Pillow's parser of EXIF data raises anything if that is damaged
                    ImageOps.exif_transpose(image, in_place=True)
                return (convert or _to_rgb)(image)
    except UnreadableImageError:
        raise
    except Exception as error:  # Pillow's decoders let nearly every kind of exception through on damaged files
        raise UnreadableImageError(path, _reason(source, error)) from error


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height in pixels, upright, from the file's header alone; None for a file that has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_known_formats()) as image:
                width, height = image.size
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
                if isinstance(image, TiffImageFile):  # Pillow says the size of some as it is after they are turned
                    turned = turned and image.size == (image.tag_v2.get(256), image.tag_v2.get(257))
    except Exception:  # as in decode: anything may come of a damaged file
        return None
    return (height, width) if turned else (width, height)


@cache
def _known_formats() -> list[str]:
    """Those of ``FORMATS`` that this Pillow has, or the extra ``heic`` adds."""
    Image.init()
    if importlib.util.find_spec("pillow_heif") is not None:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return [each for each in FORMATS if each in Image.OPEN]


def _reason(source: Path | BinaryIO, error: Exception) -> str:
    """Why an image could not be read, in a few words and without its path."""
    if isinstance(error, FileNotFoundError):
        return DEAD_LINK if isinstance(source, Path) and source.is_symlink() else "the file is missing"
    if isinstance(error, IsADirectoryError):
        return "a folder that cannot be read"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: more than {PILLOWS_MOST_PIXELS // 1_000_000} million pixels"
    if isinstance(error, UnidentifiedImageError):
        empty = source.stat().st_size == 0 if isinstance(source, Path) else source.seek(0, os.SEEK_END) == 0
        return "the file is empty" if empty else "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # a conversion to the same mode would copy
    # Converted here and not pasted with a mask, because a palette's transparency is only resolved by this.
    overlay = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay).convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of any depth to 0 ... 255, by the narrowest usual range that holds them, else by their own range."""
    grey = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    usual = (65535.0,) if np.issubdtype(values.dtype, np.integer) else (1.0, 255.0, 65535.0)
    peak = next((peak for peak in usual if low >= 0 and high <= peak), None)
    if peak is None:
        grey, peak = grey - low, max(high - low, 1e-30)
    return np.rint(grey * (255.0 / peak)).astype(np.uint8)


class SkippedImages:
    """Names and reasons of unreadable images, each once."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> SkippedImages:
        skipped = cls()
        skipped.load_state_dict(pairs)
        return skipped

    def add(self, name: str | Path, reason: str) -> None:
        """Notes an image (a path, or SHARD:MEMBER); the first reason stands."""
        self._reasons.setdefault(str(name), reason)

    def update(self, others: Iterable[SkippedImages]) -> None:
        """Adds the images of other collections, such as those of other processes."""
        for other in others:
            self.load_state_dict(other.state_dict())

    def __len__(self) -> int:
        return len(self._reasons)

    def state_dict(self) -> list[list[str]]:
        return [[path, reason] for path, reason in self._reasons.items()]

    def load_state_dict(self, state: Iterable[Sequence[str]]) -> None:
        """Adds the images of a :meth:`state_dict`."""
        for path, reason in state:
            self.add(path, reason)

    def lines(self) -> list[str]:
        """A line ``name TAB reason`` for each image, sorted by name."""
        return [f"{_one_field(name)}\t{_one_field(self._reasons[name])}" for name in sorted(self._reasons)]

    def write(self, file: Path) -> None:
        """Writes a line with the count, then :meth:`lines`."""
        count = f"# {len(self)} image{'' if len(self) == 1 else 's'} could not be read"
        with replacing(file) as unfinished:
            # Names on disk may be no valid UTF-8; they are written as they are.
            unfinished.write_text("\n".join([count, *self.lines()]) + "\n", encoding="utf-8", errors="surrogateescape")


def _one_field(text: str) -> str:
    """``text`` without the characters that part fields and lines."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
