"""The images behind the page, by key: ``g3`` is the fourth of those named at the start, ``n3`` the fourth of the folder of
neighbours, ``u3`` the fourth that was dropped on the page. No key is a path.
"""

from __future__ import annotations

import io
import itertools
import re
import threading
from collections.abc import Set
from pathlib import Path

from sparseformers.config import PreprocessingConfig
from sparseformers.data import UnreadableImageError
from sparseformers.errors import DataError
from sparseformers.viewer.config import ViewConfig
from sparseformers.viewer.gallery import Gallery
from sparseformers.viewer.photograph import Photograph, prepare, thumbnail
from sparseformers.viewer.recent import Recent

PREPARED = 24
"""Images of folders that are kept decoded; others are decoded again when they are asked for."""
THUMBNAILS = 2000
"""Thumbnails that are kept, at a few kilobytes each."""


class GoneError(DataError):
    """There is no such image (any more)."""


class UnreadableError(DataError):
    """An image that cannot be decoded."""

    @classmethod
    def of(cls, error: UnreadableImageError) -> UnreadableError:
        """The error for an image, by its name without its folders."""
        return cls(f"'{error.path.name}' cannot be read: {error.reason}.", "Choose another image.")


class Library:
    """Gives out images by key, to any number of threads; one is decoded at a time, so that memory stays bounded.

    Args:
        config: which images, and how large they may be.

    Raises:
        DataError: for a folder that is missing or holds no images, or if none of the images named one by one can be read.
    """

    def __init__(self, config: ViewConfig) -> None:
        self.images = Gallery(config.images)
        """Those named at the start."""
        self.neighbours = Gallery(() if config.neighbours is None else (config.neighbours,))
        """Those of the folder of neighbours."""
        self.most_pixels = config.most_pixels
        self.uploads_kept = config.uploads_kept
        self._galleries = {"g": self.images, "n": self.neighbours}
        self._uploads: Recent[str, Photograph] = Recent(config.uploads_kept)
        self._prepared: Recent[str, Photograph] = Recent(PREPARED)
        self._thumbnails: Recent[str, bytes] = Recent(THUMBNAILS)
        self._numbers = itertools.count()
        self._decoding = threading.Lock()
        self.unreadable = self._unreadable(set(config.images))
        """Those of the images named one by one that cannot be read; what folders hold is read when it is asked for."""

    def listing(self, start: int, count: int) -> list[dict[str, str]]:
        """Keys and names of images named at the start, ``count`` of them from ``start`` on."""
        numbers = range(len(self.images))[max(0, start) :][: max(0, count)]
        return [{"key": f"g{number}", "name": self.images.name(number)} for number in numbers]

    def upload(self, content: bytes, name: str, preprocessings: Set[PreprocessingConfig]) -> str:
        """Takes in a dropped image, which lives in memory only, and returns its key.

        Raises:
            UnreadableError: if it cannot be decoded.
        """
        photograph = self._prepare(io.BytesIO(content), name, preprocessings)
        key = f"u{next(self._numbers)}"
        self._uploads.put(key, photograph)
        return key

    def photograph(self, key: str, preprocessings: Set[PreprocessingConfig]) -> Photograph:
        """An image, decoded, as networks with these preprocessings are given it.

        Raises:
            GoneError: if there is none of that key.
            UnreadableError: if it cannot be decoded.
        """
        if key.startswith("u"):
            return self._upload(key)
        photograph = self._prepared.get(key)
        if photograph is None:
            file, name = self._file(key)
            photograph = self._prepare(file, name, preprocessings)
            self._prepared.put(key, photograph)
        return photograph

    def thumbnail(self, key: str) -> bytes:
        """A small JPEG of an image; raises as :meth:`photograph`."""
        small = self._thumbnails.get(key)
        if small is None:
            source: tuple[Path | io.BytesIO, str]
            source = (io.BytesIO(self._upload(key).display), key) if key.startswith("u") else self._file(key)
            try:
                with self._decoding:
                    small = thumbnail(*source, most_pixels=self.most_pixels)
            except UnreadableImageError as error:
                raise UnreadableError.of(error) from None
            self._thumbnails.put(key, small)
        return small

    def neighbour_number(self, key: str) -> int | None:
        """Which image of the folder of neighbours an image is; None if it is none of them, or was dropped on the page."""
        if key.startswith("u"):
            return None
        file, _ = self._file(key)
        return self.neighbours.number_of(file)

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
            raise GoneError(
                "This image is no longer in memory.", f"Drop it again: the last {self.uploads_kept} dropped images are kept."
            )
        return photograph

    def _file(self, key: str) -> tuple[Path, str]:
        """The file of an image of a folder, and its name."""
        found = re.fullmatch(r"([gn])([0-9]{1,9})", key)
        try:
            if found is None:
                raise IndexError(key)
            gallery, number = self._galleries[found[1]], int(found[2])
            return gallery.file(number), gallery.name(number)
        except IndexError:
            raise GoneError("There is no such image.", "Choose one of those that are shown.") from None
        except UnreadableImageError as error:
            raise UnreadableError.of(error) from None

    def _prepare(self, source: Path | io.BytesIO, name: str, preprocessings: Set[PreprocessingConfig]) -> Photograph:
        try:
            with self._decoding:
                return prepare(source, name, preprocessings, most_pixels=self.most_pixels)
        except UnreadableImageError as error:
            raise UnreadableError.of(error) from None
