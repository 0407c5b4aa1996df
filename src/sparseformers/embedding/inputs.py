"""What there is to embed, as one stream of batches: in an order that neither workers nor stops change."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from sparseformers.data import IMAGE_SUFFIXES
from sparseformers.data.shards import expand_shards, is_local, is_shards
from sparseformers.embedding.listing import Listing, printable, write_listing
from sparseformers.errors import DataError, shorten


@dataclass(frozen=True)
class Source:
    """The listed files of all folders, or one shard."""

    kind: Literal["files", "shard"]
    """Which of the two."""
    location: str
    """The listing, or the shard."""
    name: str
    """What the names of a shard's images begin with; empty for files."""
    begin: int
    """Bytes of all that comes before it, as far as they are known."""
    size: int
    """Its own bytes; 0 where they are not known."""
    changed: int | None = None
    """When a shard was changed, in nanoseconds; None where that is not known."""


class Position(NamedTuple):
    """A place in the stream, between two images."""

    source: int
    """Which source."""
    item: int
    """How many of its images come before."""


@dataclass(frozen=True)
class Inputs:
    """All that there is to embed."""

    sources: tuple[Source, ...]
    """In the order of the rows."""
    images: int | None
    """How many images there are; None where shards would have to be read to know."""

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
        return Inputs(tuple(moved), self.images)

    def state(self) -> dict[str, list[str | int | None]]:
        """Size and time of change of each shard, by name."""
        return {source.name: [source.size, source.changed] for source in self.sources if source.kind == "shard"}


def find_inputs(data: Sequence[str], listing: Path) -> Inputs:
    """Lists what folders hold and shards are called; shards come after the folders.

    Args:
        data: folders, image files, and names or brace patterns of shards.
        listing: file to list the images of the folders in.

    Raises:
        DataError: if one of them is missing, or there is no image in all of them.
        ConfigError: if a pattern cannot be understood.
    """
    folders = [Path(each) for each in data if not is_shards(each)]
    shards = list(dict.fromkeys(_plain(shard) for each in data if is_shards(each) for shard in expand_shards(each)))
    root = _common([*(_place(folder) for folder in folders), *(shard.rpartition("/")[0] for shard in shards)])
    sources, images = [], None
    if folders:
        images, size = write_listing(folders, Path(root or "/"), listing).total()
        sources.append(Source("files", str(listing), "", 0, size))
        if not images and not shards:
            places = shorten((f"'{folder}'" for folder in folders), limit=3)
            raise DataError(f"There are no images in {places}.", f"Images are files that end in {', '.join(IMAGE_SUFFIXES)}.")
    for shard in shards:
        begin = sources[-1].begin + sources[-1].size if sources else 0
        sources.append(_shard(shard, root, begin))
    return Inputs(tuple(sources), None if shards else images)


def _shard(shard: str, root: str, begin: int) -> Source:
    name = printable(shard[len(root) :].lstrip("/"))
    if not is_local(shard):
        return Source("shard", shard, name, begin, 0)
    status = Path(shard).stat()
    return Source("shard", shard, name, begin, status.st_size, status.st_mtime_ns)


def _plain(shard: str) -> str:
    """A shard's absolute path parted by slashes, or its address."""
    return Path(os.path.abspath(shard)).as_posix() if is_local(shard) else shard  # noqa: PTH100 - links stay as they are


def _place(folder: Path) -> str:
    """A folder's absolute path; of a single image, that of its folder."""
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay as they are
    return (place.parent if place.is_file() else place).as_posix()


def _common(places: Sequence[str]) -> str:
    """What paths and addresses have in common at their beginning, in whole folders."""
    parts = [place.split("/") for place in places]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "/".join(shared)
