"""The images that the page may show: those under the folders named at the start, by number, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sparseformers.data import UnreadableImageError, find_images
from sparseformers.errors import DataError


class Gallery:
    """Images of folders, in the order in which these were named. The page names an image by its number, never by a path.

    A symbolic link is followed as long as it stays under one of the folders; it is looked at again whenever an image is read.

    Args:
        places: folders, or single images; one that is a link is allowed wherever it leads, because it was named itself.

    Raises:
        DataError: for a place that is missing, or if there is no image in all of them.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self._roots = [os.path.realpath(place) for place in places]
        found = sorted(find_images(places), key=lambda path: _place_of(path, places)) if places else []
        self.paths = tuple(path for path in found if self._within(os.path.realpath(path)))
        self.led_out = len(found) - len(self.paths)
        """How many links lead out of the folders."""
        if found and not self.paths:
            raise DataError(
                f"All {len(found)} images are links that lead out of their folder.", "Name the folder that holds the images."
            )

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, number: int) -> str:
        """What to call an image; raises IndexError for a number that there is not."""
        return self._path(number).name

    def file(self, number: int) -> Path:
        """The file of an image as it is now, all links resolved.

        Raises:
            IndexError: for a number that there is not.
            UnreadableImageError: if it is gone, or has become a link that leads elsewhere.
        """
        path = self._path(number)
        real = os.path.realpath(path)
        if not self._within(real):
            raise UnreadableImageError(path, "it is a link that leads out of its folder")
        return Path(real)

    def number_of(self, real: Path) -> int | None:
        """The number of a resolved file; None if it is not among the images."""
        return next((number for number, path in enumerate(self.paths) if os.path.realpath(path) == str(real)), None)

    def _path(self, number: int) -> Path:
        if not 0 <= number < len(self.paths):  # a list would count negative numbers from its end
            raise IndexError(number)
        return self.paths[number]

    def _within(self, real: str) -> bool:
        return any(real == root or Path(real).is_relative_to(root) for root in self._roots)


def _place_of(path: Path, places: Sequence[Path]) -> int:
    """Which of the places an image that was found there is of."""
    return next(number for number, place in enumerate(places) if path == place or place in path.parents)
