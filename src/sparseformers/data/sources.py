"""Sources of images to learn from or to measure with: their interface, and image files."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sparseformers.data.images import MOST_PIXELS, read_image
from sparseformers.data.order import FullShuffle, Interleaved, PassOrder, WindowShuffle
from sparseformers.data.places import Found
from sparseformers.errors import DataError

FEWEST_SAMPLES = 100  # before this many, the share of them that could not be read counts as 0


class ImageSource(ABC):
    """Images that can be read in any order, by their place from 0; ``found`` is what lies in their folders."""

    found = Found()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """The name of an image in lists: a path, or SHARD:MEMBER."""

    @abstractmethod
    def key(self, index: int) -> str:
        """A name that stays the same if the source as a whole is moved."""

    @abstractmethod
    def read(self, index: int, *, at_least: int | None = None) -> Image.Image:
        """An image in 8-bit RGB; UnreadableImageError if it is bad, DataError if the source cannot be reached any more."""

    @abstractmethod
    def identity(self) -> list[Any]:
        """JSON values that change if the images do, as far as this shows without reading them."""

    @abstractmethod
    def digest(self) -> str:
        """32 hexadecimal digits that belong to the keys of all images in their order."""

    def size(self, index: int) -> int | None:
        """Bytes of an image as it is stored, if known."""
        return None

    def faults(self) -> Sequence[tuple[str, str]]:
        """(name, reason) of what was found bad before anything was decoded; none of it is among the images."""
        return self.found.faults

    def missing(self) -> int:
        """About how many images the faults stand for."""
        return len(self.found.faults)

    def remarks(self) -> Sequence[str]:
        """Sentences on what was found beside the images."""
        return self.found.remarks()

    def order(self) -> PassOrder:
        return FullShuffle(len(self))

    def sample_order(self) -> Interleaved:
        """The order in which to learn from it."""
        return Interleaved((self.order(),), (1,))

    def only(self, places: Sequence[int]) -> ImageSource:
        """The images at these increasing places."""
        return Selection(self, places, leave_out=False)

    def without(self, places: Sequence[int]) -> ImageSource:
        """The images at all places but these, which increase."""
        return Selection(self, places, leave_out=True)


class FolderSource(ImageSource):
    """Image files; a missing one, or one of too many pixels, counts as unreadable."""

    def __init__(self, paths: Iterable[Path], *, most_pixels: int = MOST_PIXELS, found: Found | None = None) -> None:
        self.paths, self.most_pixels, self.found = tuple(paths), most_pixels, found or Found()

    @cached_property
    def _root(self) -> str:
        return common_folder(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def key(self, index: int) -> str:
        return relative_names([self.paths[index]], self._root)[0]

    def read(self, index: int, *, at_least: int | None = None) -> Image.Image:
        return read_image(self.paths[index], at_least=at_least, most_pixels=self.most_pixels)

    def size(self, index: int) -> int | None:
        return state_of(self.paths[index])[0]

    def only(self, places: Sequence[int]) -> FolderSource:
        return FolderSource([self.paths[place] for place in places], most_pixels=self.most_pixels, found=self.found)

    def without(self, places: Sequence[int]) -> FolderSource:
        return self.only(np.delete(np.arange(len(self)), places).tolist())

    def identity(self) -> list[Any]:
        """Each file's path below the folder that all share, its bytes, and its time of change in nanoseconds."""
        names = relative_names(self.paths, self._root)
        return [[name, *state_of(path)] for name, path in zip(names, self.paths, strict=True)]

    def digest(self) -> str:
        return digest_of(relative_names(self.paths, self._root))


def common_folder(paths: Sequence[Path]) -> str:
    """The folder that all paths share, absolute; the root of all for none."""
    folders = [os.path.dirname(os.path.abspath(path)) for path in paths]  # noqa: PTH100, PTH120 - a million
    return os.path.commonpath(folders) if folders else os.sep


def relative_names(paths: Sequence[Path], root: str) -> list[str]:
    """The paths relative to a folder that holds them, with slashes."""
    begin = len(root.rstrip(os.sep)) + 1
    return [os.path.abspath(path)[begin:].replace(os.sep, "/") for path in paths]  # noqa: PTH100 - a million


def draw_of(name: str, seed: int) -> bytes:
    """Eight random bytes that belong to this name and seed."""
    return hashlib.blake2b(f"{seed}\n{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()


def digest_of(names: Iterable[str]) -> str:
    """32 hexadecimal digits that belong to these names in this order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()[:32]


def state_of(path: str | Path) -> tuple[int | None, int | None]:
    """Size and time of change in nanoseconds; None for a file that is gone, which is one more unreadable image."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a million
    except OSError:
        return None, None
    return status.st_size, status.st_mtime_ns


class DerivedSource(ImageSource):
    """Images of other ``sources``, in another choice or order."""

    sources: tuple[ImageSource, ...]

    @abstractmethod
    def place(self, index: int) -> tuple[ImageSource, int]:
        """The source of an image, and the image's place in the whole of it."""

    def name(self, index: int) -> str:
        source, place = self.place(index)
        return source.name(place)

    def key(self, index: int) -> str:
        source, place = self.place(index)
        return source.key(place)

    def read(self, index: int, *, at_least: int | None = None) -> Image.Image:
        source, place = self.place(index)
        return source.read(place, at_least=at_least)

    def size(self, index: int) -> int | None:
        source, place = self.place(index)
        return source.size(place)

    def faults(self) -> Sequence[tuple[str, str]]:
        return [fault for source in self.sources for fault in source.faults()]

    def missing(self) -> int:
        return sum(source.missing() for source in self.sources)

    def remarks(self) -> Sequence[str]:
        return [remark for source in self.sources for remark in source.remarks()]


class Selection(DerivedSource):
    """The images of a source at these increasing places, or, with ``leave_out``, at all others."""

    def __init__(self, source: ImageSource, places: Sequence[int] | np.ndarray, *, leave_out: bool) -> None:
        self.source, self.sources = source, (source,)
        self.places = np.asarray(places, dtype=np.int64)
        self.leave_out = leave_out
        # Before the k-th place that is left out there are places[k] - k of the others.
        self._others_before = self.places - np.arange(len(self.places))

    def __len__(self) -> int:
        return len(self.source) - len(self.places) if self.leave_out else len(self.places)

    def place(self, index: int) -> tuple[ImageSource, int]:
        if not self.leave_out:
            return self.source, int(self.places[index])
        return self.source, index + int(np.searchsorted(self._others_before, index, side="right"))

    def order(self) -> PassOrder:
        whole = self.source.order()
        if not isinstance(whole, WindowShuffle):
            return FullShuffle(len(self))
        before = np.searchsorted(self.places, whole.bounds)
        return WindowShuffle(whole.bounds - before if self.leave_out else before, whole.window)

    def only(self, places: Sequence[int]) -> ImageSource:
        return Selection(self.source, [self.place(place)[1] for place in places], leave_out=False)

    def without(self, places: Sequence[int]) -> ImageSource:
        left_out = [self.place(place)[1] for place in places]
        if self.leave_out:
            return Selection(self.source, sorted([*self.places.tolist(), *left_out]), leave_out=True)
        return Selection(self.source, np.setdiff1d(self.places, left_out), leave_out=False)

    def identity(self) -> list[Any]:
        return [self.source.identity(), self.leave_out, hashlib.sha256(self.places.tobytes()).hexdigest()]

    def digest(self) -> str:
        return digest_of([self.source.digest(), str(self.leave_out), hashlib.sha256(self.places.tobytes()).hexdigest()])


@dataclass(kw_only=True)
class BadShare:
    """The share of bad images: those missing from the start, and of the others the same share as of the samples so far."""

    missing: int  # images that were found bad before anything was decoded
    images: int  # all others
    most: float  # the greatest share that is accepted, in [0, 1]
    met: int = 0  # samples
    bad: int = 0  # samples that could not be read

    def count(self, *, met: int, bad: int) -> None:
        self.met += met
        self.bad += bad

    @property
    def share(self) -> float:
        of_the_rest = self.bad / self.met if self.met >= FEWEST_SAMPLES else 0.0
        return (self.missing + self.images * of_the_rest) / max(1, self.missing + self.images)

    @property
    def is_too_great(self) -> bool:
        return self.share > self.most

    def refuse(self, listed_in: str) -> None:
        """Raises DataError if the share is too great; ``listed_in`` tells which images are bad."""
        if self.is_too_great:
            found = f"{self.missing:,} found before any was read, {self.bad:,} of {self.met:,} that were to be read"
            problem = f"{self.share:.1%} of the images are bad, more than --max-bad {self.most:g} allows ({found})."
            raise DataError(problem, f"Mend the data ({listed_in}), or start again with a greater --max-bad.")
