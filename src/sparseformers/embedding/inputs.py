"""The images to embed, listed once on the disk: as many as there may be, in an order that neither workers nor stops change."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

from sparseformers.data.places import Found, checked, no_images, walk
from sparseformers.data.shards import expand_shards, is_local, is_shards
from sparseformers.data.sources import state_of
from sparseformers.files import replacing

_TABLE = """CREATE TABLE images (
    place INTEGER PRIMARY KEY, identity BLOB UNIQUE, path BLOB, name TEXT, size INTEGER, changed INTEGER, bytes_before INTEGER
)"""


class ListedImage(NamedTuple):
    """One image file."""

    path: Path
    name: str  # relative to the common root, parted by slashes
    bytes_before: int  # size of all the files before it


@dataclass(frozen=True)
class Listing:
    """The image files that :func:`write_listing` listed, in the order of their paths, folder by folder as these were given."""

    file: Path

    def total(self) -> tuple[int, int]:
        """The number of images, and their bytes."""
        with closing(self._open()) as database:
            images, size = database.execute("SELECT count(*), coalesce(sum(size), 0) FROM images").fetchone()
        return images, size

    def batches(self, start: int, size: int) -> Iterator[range]:
        images, _ = self.total()
        for first in range(start, images, size):
            yield range(first, min(first + size, images))

    def images(self, places: range) -> list[ListedImage]:
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


def write_listing(folders: Sequence[Path], root: Path, file: Path) -> tuple[Listing, Found]:
    """Lists the images in folder trees, each file once, in memory that does not grow with their number.

    Entries that cannot be read are listed as images are, and skipped with the reason as such are. Names are relative to ``root``,
    an absolute path; ``file`` is written whole or not at all. Returns the list, and what else there is: shards and, by ending,
    what is passed over. Raises DataError for a folder that is missing, or a file that is no image.
    """
    starts = [checked(folder) for folder in folders]
    visited: set[str] = set()
    place = total = 0
    others = Found()
    with replacing(file) as unfinished, closing(sqlite3.connect(unfinished)) as database:
        # It is renamed when it is whole, so it needs no safety of its own.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(_TABLE)
        for entry in (entry for folder in starts for entry in walk(folder, visited)):
            if entry.kind in ("shard", "other"):
                others.add(entry)
                continue
            size, changed = state_of(entry.path)
            digest = hashlib.blake2b(os.fsencode(entry.real), digest_size=16).digest()
            relative = Path(os.path.relpath(os.path.abspath(entry.path), root)).as_posix()  # noqa: PTH100 - links stay as they are
            row = (place, digest, os.fsencode(entry.path), text_name(relative), size or 0, changed, total)
            if database.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount:
                place, total = place + 1, total + (size or 0)
        database.commit()
    return Listing(file), others


def text_name(name: str) -> str:
    """A file name as text that any file format takes: bytes that are no UTF-8 are written in hexadecimal."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class InputSource:
    """The listed files of all folders, or one shard."""

    kind: Literal["files", "shard"]
    location: str  # the file of the listing, or the path or address of the shard
    name: str  # the beginning of the names of a shard's images
    begin: int  # bytes of all that comes before it, as far as they are known
    size: int  # 0 where it is not known
    changed: int | None = None  # a shard's time of change in nanoseconds


class Position(NamedTuple):
    """A place in the stream, between two images."""

    source: int
    item: int  # images of the source that come before


@dataclass(frozen=True)
class Inputs:
    """All images to embed, in the order of the rows."""

    sources: tuple[InputSource, ...]
    images: int | None  # None where shards would have to be read to know
    remarks: tuple[str, ...] = ()  # sentences on what was found beside the images

    @property
    def size(self) -> int:
        """Bytes of all of it, as far as they are known."""
        return self.sources[-1].begin + self.sources[-1].size

    @property
    def listing(self) -> Listing | None:
        """The files of the folders; None where there are shards only."""
        return next((Listing(Path(source.location)) for source in self.sources if source.kind == "files"), None)

    def listed_in(self, listing: Path) -> Inputs:
        """The same with the listing moved to another place."""
        moved = (replace(each, location=str(listing)) if each.kind == "files" else each for each in self.sources)
        return Inputs(tuple(moved), self.images, self.remarks)

    def state(self) -> dict[str, list[str | int | None]]:
        """Size and time of change of each shard, by name."""
        return {source.name: [source.size, source.changed] for source in self.sources if source.kind == "shard"}


def find_inputs(data: Sequence[str], listing: Path) -> Inputs:
    """Lists the images of ``data``: those in folders and image files, in the file ``listing``, and then the shards.

    Shards may lie in the folders, too. Raises DataError if a folder or shard is missing, or there is no image at all, ConfigError
    for a brace pattern that is none.
    """
    folders = [Path(each) for each in data if not is_shards(each)]
    shards = list(dict.fromkeys(_absolute(shard) for each in data if is_shards(each) for shard in expand_shards(each)))
    places = [_absolute(str(folder.parent if folder.is_file() else folder)) for folder in folders]
    # The common beginning of all, in whole folders.
    levels = zip(*(place.split("/") for place in [*places, *(shard.rpartition("/")[0] for shard in shards)]), strict=False)
    root = "/".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))
    sources, images = [], None
    remarks: tuple[str, ...] = ()
    if folders:
        written, others = write_listing(folders, Path(root or "/"), listing)
        images, listed = written.total()
        shards = list(dict.fromkeys([*(_absolute(str(shard)) for shard in others.shards), *shards]))
        sources.append(InputSource("files", str(listing), "", 0, listed))
        remarks = tuple(others.remarks())
        if not images and not shards:
            raise no_images(folders, others)
    for shard in shards:
        begin = sources[-1].begin + sources[-1].size if sources else 0
        size, changed = state_of(shard) if is_local(shard) else (None, None)
        sources.append(InputSource("shard", shard, text_name(shard[len(root) :].lstrip("/")), begin, size or 0, changed))
    return Inputs(tuple(sources), None if shards else images, remarks)


def _absolute(place: str) -> str:
    """An absolute path parted by slashes, or an address."""
    return Path(os.path.abspath(place)).as_posix() if is_local(place) else place  # noqa: PTH100 - links stay as they are
