"""The images of folder trees, listed once on the disk: as many as there may be, in an order that stays."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from sparseformers.data.images import checked_folder, walk_images
from sparseformers.files import replacing

_TABLE = """CREATE TABLE images (
    place INTEGER PRIMARY KEY, identity BLOB UNIQUE, path BLOB, name TEXT, size INTEGER, changed INTEGER, bytes_before INTEGER
)"""


class ListedImage(NamedTuple):
    """One image file."""

    path: Path
    """To read it from."""
    name: str
    """Relative to the common root, parted by slashes."""
    bytes_before: int
    """Size of all the files before it."""


class Listing:
    """The image files of a listing, in the order of their paths, folder by folder as these were given.

    Args:
        file: that :func:`write_listing` made; it is opened where it is first read, so that a listing can go to other processes.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def total(self) -> tuple[int, int]:
        """How many images there are, and their bytes."""
        with closing(self._open()) as database:
            images, size = database.execute("SELECT count(*), coalesce(sum(size), 0) FROM images").fetchone()
        return images, size

    def batches(self, start: int, size: int) -> Iterator[range]:
        """The places from ``start`` on, in batches of at most ``size``."""
        images, _ = self.total()
        for first in range(start, images, size):
            yield range(first, min(first + size, images))

    def images(self, places: range) -> list[ListedImage]:
        """The images at these places."""
        query = "SELECT path, name, bytes_before FROM images WHERE place >= ? AND place < ? ORDER BY place"
        with closing(self._open()) as database:
            rows = database.execute(query, (places.start, places.stop)).fetchall()
        return [ListedImage(Path(os.fsdecode(path)), name, before) for path, name, before in rows]

    def difference(self, other: Listing) -> str | None:
        """The name of the first image that is not the same in both (name, size, time of change); None if all are."""
        with closing(self._open()) as ours, closing(other._open()) as theirs:
            query = "SELECT name, size, changed FROM images ORDER BY place"
            for one, another in zip_longest(ours.execute(query), theirs.execute(query)):
                if one != another:
                    return str(min(row[0] for row in (one, another) if row is not None))
        return None

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def write_listing(folders: Sequence[Path], root: Path, file: Path) -> Listing:
    """Lists the images in folder trees, each file once, in memory that does not grow with their number.

    Args:
        folders: folders, or single image files.
        root: absolute; names are relative to it.
        file: the listing to write, whole or not at all.

    Raises:
        DataError: for a folder that is missing or cannot be read, or a file that is no image.
    """
    checked = [checked_folder(folder) for folder in folders]
    visited: set[str] = set()
    place = total = 0
    with replacing(file) as unfinished, closing(sqlite3.connect(unfinished)) as database:
        # It is renamed when it is whole, so it needs no safety of its own.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(_TABLE)
        for identity, path in (found for folder in checked for found in walk_images(folder, visited)):
            size, changed = _state(path)
            row = (place, _digest(identity), os.fsencode(path), relative_name(path, root), size, changed, total)
            if database.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount:
                place, total = place + 1, total + size
        database.commit()
    return Listing(file)


def relative_name(path: Path, root: Path) -> str:
    """The path relative to ``root``, parted by slashes; bytes that are no UTF-8 are written in hexadecimal."""
    return printable(Path(os.path.relpath(os.path.abspath(path), root)).as_posix())  # noqa: PTH100 - links stay as they are


def printable(name: str) -> str:
    """A file name as text that any file format takes: bytes that are no UTF-8 are written in hexadecimal."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _digest(identity: str) -> bytes:
    return hashlib.blake2b(os.fsencode(identity), digest_size=16).digest()


def _state(path: Path) -> tuple[int, int | None]:
    """Size and time of change in nanoseconds; of a file that is gone by now, which is one more unreadable image, none."""
    try:
        status = path.stat()
    except OSError:
        return 0, None
    return status.st_size, status.st_mtime_ns
