"""The images behind the page, by key, and nothing else: no key is a path.

``g3`` is the fourth of the images named at the start, ``n3`` of the folder of neighbours, ``u3`` of those dropped on the page.
Files are not kept; of each image in use the page has a JPEG, and the networks their inputs.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from PIL import Image
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data import UnreadableImageError, evaluation_view, from_bytes
from sparseformers.data.images import decode
from sparseformers.data.places import find, no_images
from sparseformers.errors import DataError
from sparseformers.viewer.config import ViewConfig

DISPLAY_SIDE, THUMBNAIL_SIDE = 1600, 160  # longest side of photographs and thumbnails, in pixels
PREPARED = 24  # images of folders that are kept decoded; others are decoded again when they are asked for
THUMBNAILS = 2000  # thumbnails that are kept, at a few kilobytes each

Region = tuple[float, float, float, float]  # (x1, y1, x2, y2) in [0, 1] of a photograph
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class KeptInput:
    """A photograph as a network is given it."""

    pixels: Tensor  # 3 x H x W bytes
    seen: Region  # which part of the photograph that is

    def image(self) -> Tensor:
        return from_bytes(self.pixels)


@dataclass(frozen=True)
class Photograph:
    """A photograph as it is kept: a megabyte at most, however large its file is."""

    name: str
    width: int  # in pixels, of the whole photograph, upright
    height: int
    display: bytes  # a JPEG for the page
    inputs: Mapping[PreprocessingConfig, KeptInput]


def prepare(source: Path | BinaryIO, name: str, preprocessings: Iterable[PreprocessingConfig], *, most_pixels: int) -> Photograph:
    """Decodes a photograph once, into a JPEG and the inputs of networks; raises UnreadableImageError if it cannot."""
    image = decode(source, Path(name), most_pixels=most_pixels)
    inputs = {}
    for preprocessing in preprocessings:
        view = evaluation_view(preprocessing)
        inputs[preprocessing] = KeptInput(view.pixels(image), view.frame(height=image.height, width=image.width))
    return Photograph(name, image.width, image.height, jpeg(image, DISPLAY_SIDE), inputs)


def thumbnail(source: Path | BinaryIO, name: str, *, most_pixels: int) -> bytes:
    """A small JPEG, from a JPEG file at a fraction of its size, which is much faster; UnreadableImageError if it is no image."""
    return jpeg(decode(source, Path(name), at_least=THUMBNAIL_SIDE, most_pixels=most_pixels), THUMBNAIL_SIDE)


def jpeg(image: Image.Image, longest: int) -> bytes:
    """An RGB image as JPEG, reduced where a side is longer than ``longest``; nothing of its metadata goes with it."""
    bare = image.copy()
    bare.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    bare.info.clear()  # Pillow would hand on colour profiles and comments of the file
    memory = io.BytesIO()
    bare.save(memory, "JPEG", quality=88)
    return memory.getvalue()


class Recent(Generic[Key, Value]):
    """At most ``most`` values, without those unused for longest, for several threads; those that are made take ``turn``."""

    def __init__(self, most: int, turn: threading.Lock) -> None:
        self.most, self.turn = most, turn
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """The value, which counts as used now; None if it is not there (any more)."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Key, value: Value) -> None:
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            while len(self._entries) > self.most:
                self._entries.popitem(last=False)

    def once(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value, made by ``make`` if it is not there."""
        value = self.get(key)
        if value is None:
            with self.turn:
                value = self.get(key)  # another thread may have asked for the same
                if value is None:
                    value = make()
                    self.put(key, value)
        return value


class Gallery:
    """Images of folders (or single ones), in the order in which these were named; an image goes by its number, not by a path.

    A symbolic link is followed as long as it stays under one of the places; it is checked again whenever an image is read. Raises
    DataError for a place that is missing, or without any image.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self._roots = [os.path.realpath(place) for place in places]
        there = find(places)
        if places and not there.images:
            raise no_images(places, there)
        self.faults = tuple(there.faults)  # entries of the folders that cannot be read, with the reasons
        found = sorted(there.images, key=lambda path: _place_of(path, places))
        self.paths = tuple(path for path in found if self._within(os.path.realpath(path)))
        self.led_out = len(found) - len(self.paths)  # number of links that lead out of the folders
        if found and not self.paths:
            problem = f"All {len(found)} images are links that lead out of their folder."
            raise DataError(problem, "Name the folder that holds the images.")

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, number: int) -> str:
        return self.paths[number].name

    def file(self, number: int) -> Path:
        """An image's file, links resolved; IndexError for an unknown number, UnreadableImageError if it is gone or leads out."""
        real = os.path.realpath(self.paths[number])
        if not self._within(real):
            raise UnreadableImageError(self.paths[number], "it is a link that leads out of its folder")
        return Path(real)

    def number_of(self, real: Path) -> int | None:
        return next((number for number, path in enumerate(self.paths) if os.path.realpath(path) == str(real)), None)

    def _within(self, real: str) -> bool:
        return any(real == root or Path(real).is_relative_to(root) for root in self._roots)


def _place_of(path: Path, places: Sequence[Path]) -> int:
    return next(number for number, place in enumerate(places) if path == place or place in path.parents)


class GoneError(DataError):
    """There is no such image (any more)."""


class UnreadableError(DataError):
    """An image that cannot be decoded."""


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except UnreadableImageError as error:
        raise UnreadableError(f"'{error.path.name}' cannot be read: {error.reason}.", "Choose another image.") from None


class Library:
    """Gives out images by key, to any number of threads, and decodes one at a time.

    Raises DataError if there is none to read, GoneError for an unknown key, and UnreadableError for a file that is none.
    """

    def __init__(self, config: ViewConfig) -> None:
        self.images = Gallery(config.images)  # those named at the start
        self.neighbours = Gallery(() if config.neighbours is None else (config.neighbours,))  # those of the folder of neighbours
        self.most_pixels, self.uploads_kept = config.most_pixels, config.uploads_kept
        self._galleries = {"g": self.images, "n": self.neighbours}
        self._decoding = threading.Lock()
        self._uploads: Recent[str, Photograph] = Recent(config.uploads_kept, self._decoding)
        self._prepared: Recent[str, Photograph] = Recent(PREPARED, self._decoding)
        self._thumbnails: Recent[str, bytes] = Recent(THUMBNAILS, self._decoding)
        self._numbers = itertools.count()
        self.unreadable = self._unreadable(set(config.images))  # of images named one by one

    def listing(self, start: int, count: int) -> list[dict[str, str]]:
        """Keys and names of images named at the start, ``count`` of them from ``start`` on."""
        numbers = range(len(self.images))[max(0, start) :][:count]
        return [{"key": f"g{number}", "name": self.images.name(number)} for number in numbers]

    def upload(self, content: bytes, name: str, preprocessings: Set[PreprocessingConfig]) -> str:
        """Takes in a dropped image, which lives in memory only, and returns its key."""
        key, source = f"u{next(self._numbers)}", io.BytesIO(content)
        with _readable():
            self._uploads.once(key, lambda: prepare(source, name, preprocessings, most_pixels=self.most_pixels))
        return key

    def photograph(self, key: str, preprocessings: Set[PreprocessingConfig]) -> Photograph:
        if key.startswith("u"):
            return self._upload(key)
        with _readable():
            return self._prepared.once(key, lambda: prepare(*self._file(key), preprocessings, most_pixels=self.most_pixels))

    def thumbnail(self, key: str) -> bytes:
        def source() -> tuple[Path | io.BytesIO, str]:
            return (io.BytesIO(self._upload(key).display), key) if key.startswith("u") else self._file(key)

        with _readable():
            return self._thumbnails.once(key, lambda: thumbnail(*source(), most_pixels=self.most_pixels))

    def neighbour_number(self, key: str) -> int | None:
        """The number of an image in the folder of neighbours; None if it is none of them, or was dropped on the page."""
        with _readable():
            return None if key.startswith("u") else self.neighbours.number_of(self._file(key)[0])

    def _unreadable(self, named: Set[Path]) -> list[UnreadableError]:
        """Raises DataError if there are images, all named one by one, and none of them can be read."""
        faults = []
        for number, path in enumerate(self.images.paths):
            if path in named:
                try:
                    self.thumbnail(f"g{number}")
                except UnreadableError as error:
                    faults.append(error)
        if faults and len(faults) == len(self.images):
            raise DataError(f"None of the {len(faults)} images can be read. {faults[0].problem}", "Name others.")
        return faults

    def _upload(self, key: str) -> Photograph:
        photograph = self._uploads.get(key)
        if photograph is None:
            problem = "This image is no longer in memory."
            raise GoneError(problem, f"Drop it again: the last {self.uploads_kept} dropped images are kept.")
        return photograph

    def _file(self, key: str) -> tuple[Path, str]:
        found = re.fullmatch(r"([gn])([0-9]{1,9})", key)
        try:
            if found is None:
                raise IndexError(key)
            gallery, number = self._galleries[found[1]], int(found[2])
            return gallery.file(number), gallery.name(number)
        except IndexError:
            raise GoneError("There is no such image.", "Choose one of those that are shown.") from None
