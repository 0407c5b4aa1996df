"""The images to embed, listed once on the disk and read in batches, in an order that neither workers nor stops change."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import islice, takewhile, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from sparseformers.data import LoadedView, Loader, UnreadableImageError, collate, read_image
from sparseformers.data.dataset import VIEW_BYTES
from sparseformers.data.images import decode
from sparseformers.data.places import Found, checked, no_images, walk
from sparseformers.data.shards import ShardMember, expand_shards, is_local, is_shards, shard_members
from sparseformers.data.sources import state_of
from sparseformers.errors import DataError
from sparseformers.files import replacing

_TABLE = """CREATE TABLE images (
    place INTEGER PRIMARY KEY, identity BLOB UNIQUE, path BLOB, name TEXT, size INTEGER, changed INTEGER, bytes_before INTEGER
)"""


@dataclass(frozen=True)
class Listing:
    """The image files that :func:`write_listing` listed, in the order of their paths, folder by folder as these were given."""

    file: Path

    def total(self) -> tuple[int, int]:
        """The number of images, and their bytes."""
        with closing(self._open()) as database:
            return database.execute("SELECT count(*), coalesce(sum(size), 0) FROM images").fetchone()

    def images(self, start: int = 0) -> Iterator[tuple[Path, str, int]]:
        """Path, name (relative to the common root, with slashes) and the bytes of all files before, from an image on."""
        query = "SELECT path, name, bytes_before FROM images WHERE place >= ? ORDER BY place"
        with closing(self._open()) as database:
            for path, name, before in database.execute(query, (start,)):
                yield Path(os.fsdecode(path)), name, before

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
    """Lists the images in folder trees in ``file``, each once, in memory that does not grow with their number.

    Entries that cannot be read are listed as images are, to be skipped with a reason. Names are relative to ``root``, an absolute
    path. Returns the list, and what else there is. Raises DataError for a missing folder, or a file that is no image.
    """
    starts = [checked(folder) for folder in folders]
    visited: set[str] = set()
    place = total = 0
    others = Found()
    with replacing(file) as unfinished, closing(sqlite3.connect(unfinished)) as database:
        database.execute("PRAGMA journal_mode = OFF")  # it is renamed when it is whole, so it needs no safety of its own
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
    """One shard, or the listed files of all folders."""

    shard: str | None  # its path or address; None for the files
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
    listing: Listing | None  # the files of the folders; None where there are shards only
    images: int | None  # None where shards would have to be read to know
    remarks: tuple[str, ...] = ()  # sentences on what was found beside the images

    @property
    def size(self) -> int:
        """Bytes of all of it, as far as they are known."""
        return self.sources[-1].begin + self.sources[-1].size

    def state(self) -> dict[str, list[str | int | None]]:
        return {source.name: [source.size, source.changed] for source in self.sources if source.shard}


def find_inputs(data: Sequence[str], file: Path) -> Inputs:
    """Lists the images of ``data``: those in folders and image files, in ``file``, and then the shards, also those in folders.

    Raises DataError if a folder or shard is missing, or there is no image at all, ConfigError for a brace pattern that is none.
    """
    folders = [Path(each) for each in data if not is_shards(each)]
    shards = list(dict.fromkeys(_absolute(shard) for each in data if is_shards(each) for shard in expand_shards(each)))
    places = [_absolute(str(folder.parent if folder.is_file() else folder)) for folder in folders]
    # The common beginning of all, in whole folders.
    levels = zip(*(place.split("/") for place in [*places, *(shard.rpartition("/")[0] for shard in shards)]), strict=False)
    root = "/".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))
    sources, listing, images, others = [], None, 0, Found()
    if folders:
        listing, others = write_listing(folders, Path(root or "/"), file)
        images, size = listing.total()
        shards = list(dict.fromkeys([*(_absolute(str(shard)) for shard in others.shards), *shards]))
        sources.append(InputSource(None, "", 0, size))
        if not images and not shards:
            raise no_images(folders, others)
    for shard in shards:
        begin = sources[-1].begin + sources[-1].size if sources else 0
        bytes_, changed = state_of(shard) if is_local(shard) else (None, None)
        sources.append(InputSource(shard, text_name(shard[len(root) :].lstrip("/")), begin, bytes_ or 0, changed))
    return Inputs(tuple(sources), listing, None if shards else images, tuple(others.remarks()))


def _absolute(place: str) -> str:
    """An absolute path parted by slashes, or an address."""
    return Path(os.path.abspath(place)).as_posix() if is_local(place) else place  # noqa: PTH100 - links stay as they are


class InputBatch(NamedTuple):
    """Consecutive images of one source."""

    images: Tensor  # b x 3 x H x W in [0, 1]: those that could be read
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]  # (file name, reason) of those that could not
    end: Position
    reached: int  # bytes of the input up to there, about
    stop: tuple[str, str] | None = None  # (problem, remedy) where the stream cannot go on

    def received(self) -> InputBatch:
        """The batch itself; raises DataError where the process that read it could only report that."""
        if self.stop is not None:
            raise DataError(*self.stop)
        return self


class InputStream(IterableDataset[InputBatch]):
    """The batches of ``inputs`` from ``start`` on, where an earlier stream with the same batch size ended a batch.

    Worker w of W makes every W-th batch, beginning with the batch w, and a loader asks them in turn; each of them looks at all
    names, and reads its own images only. The last batch of a source may be short.
    """

    def __init__(self, inputs: Inputs, view: Callable[[Image.Image], Tensor], batch_size: int, start: Position) -> None:
        self.inputs, self.view, self.batch_size, self.start = inputs, view, batch_size, start

    def __iter__(self) -> Iterator[InputBatch]:
        info = get_worker_info()
        turn, turns = (0, 1) if info is None else (info.id, info.num_workers)
        number = 0
        try:
            for place, source in islice(enumerate(self.inputs.sources), self.start.source, None):
                end = self.start.item if place == self.start.source else 0
                images = self._images(source, end)
                while True:
                    views: list[LoadedView] = []
                    names: list[str] = []
                    begin, reached, mine = end, 0, number % turns == turn
                    for name, before, read in islice(images, self.batch_size):
                        end, reached = end + 1, before
                        if mine:
                            views.append(self._view(len(views), read))
                            names.append(name)
                    if end == begin:
                        break
                    if end < begin + self.batch_size:
                        reached = source.begin + source.size
                    if mine:
                        yield _batch(views, names, Position(place, end), reached)
                    number += 1
        except DataError as error:  # a loader would make another kind of error of it
            if number % turns == turn:
                yield InputBatch(torch.empty(0, 3, 0, 0), (), (), self.start, 0, (error.problem, error.remedy))

    def _images(self, source: InputSource, start: int) -> Iterator[tuple[str, int, Callable[[], Image.Image]]]:
        """The name of each image from ``start`` on, the bytes of the input before it, and a function that reads it."""
        if source.shard is None:
            assert self.inputs.listing is not None
            for path, name, before in self.inputs.listing.images(start):
                yield name, source.begin + before, partial(read_image, path)
            return
        for member in islice(shard_members(source.shard), start, None):
            name = text_name(f"{source.name}/{member.name}".rstrip("/"))
            yield name, source.begin + min(member.start, source.size), partial(_decoded, member)

    def _view(self, index: int, read: Callable[[], Image.Image]) -> LoadedView:
        try:
            return LoadedView(self.view(read()), index, None)
        except UnreadableImageError as error:
            return LoadedView(None, index, error.reason)


def _decoded(member: ShardMember) -> Image.Image:
    if member.problem is not None:
        raise UnreadableImageError(Path(member.name), member.problem)
    return decode(BytesIO(member.read()), Path(member.name))


def _batch(views: list[LoadedView], names: list[str], end: Position, reached: int) -> InputBatch:
    batch = collate(views)
    skipped = tuple((names[place], reason) for place, reason in batch.unreadable)
    return InputBatch(batch.images, tuple(names[place] for place in batch.indices.tolist()), skipped, end, reached)


def input_batches(stream: InputStream, *, workers: int) -> Iterator[InputBatch]:
    """The batches of a stream in order, by ``workers`` processes (one at most for addresses); DataError if a shard is gone."""
    if not all(source.shard is None or is_local(source.shard) for source in stream.inputs.sources):
        workers = min(workers, 1)
    size = 4 * stream.batch_size * getattr(stream.view, "bytes", VIEW_BYTES // 4)
    options: dict[str, Any] = {"collate": _as_it_is, "batch_size": None}  # the stream makes batches itself
    return iter(Loader(stream, workers=workers, batch_bytes=size, received=InputBatch.received, **options))


def _as_it_is(batch: InputBatch) -> InputBatch:
    return batch
