"""What the places hold that a user names: images, tar shards, what cannot be read, and what is passed over.

Every command understands a folder in this one way. Hidden entries and folders of our own work, such as runs, are left out.
Symbolic links are followed, and each file counts once.
"""

from __future__ import annotations

import errno
import importlib.util
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import features

from sparseformers.errors import DataError, shorten, suggest

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".ppm", ".pgm"),
    *(".heic", ".heif"),
)
"""Endings of image files, in any case; some need a newer Pillow or the extra ``heic``, see :func:`readable_suffixes`."""
SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz")
OUR_MANIFESTS = ("config.json", "metrics.jsonl")  # of the folder of a run, whose pictures are not images to learn from
DEAD_LINK = "a link that leads nowhere"

Kind = Literal["image", "shard", "fault", "other"]


class Entry(NamedTuple):
    """A file in a folder tree."""

    kind: Kind
    path: Path
    real: str  # its path with links resolved, by which it counts once
    reason: str = ""  # of a fault: why it cannot be read


@dataclass
class Found:
    """The content of some places; paths are sorted."""

    images: list[Path] = field(default_factory=list)
    shards: list[Path] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)  # (path, reason) of entries that cannot be read
    passed_over: Counter[str] = field(default_factory=Counter)  # files by the endings of their names, none that are read

    def add(self, entry: Entry) -> None:
        if entry.kind == "fault":
            self.faults.append((str(entry.path), entry.reason))
        elif entry.kind == "other":
            self.passed_over[entry.path.suffix.lower() or "without ending"] += 1
        else:
            (self.images if entry.kind == "image" else self.shards).append(entry.path)

    def told(self) -> str:
        """What was passed over, such as "4 files passed over: .heic 4"; empty if nothing was."""
        count = sum(self.passed_over.values())
        kinds = ", ".join(f"{suffix} {number}" for suffix, number in self.passed_over.most_common(5))
        return f"{_count(count, 'file')} passed over: {kinds}" if count else ""

    def remarks(self) -> list[str]:
        """What a user may not expect, in sentences."""
        both = f"{_count(len(self.images), 'image')} and {_count(len(self.shards), 'tar shard')}: both are read."
        return [*([both] if self.images and self.shards else []), *([f"{self.told()}."] if self.passed_over else [])]

    def reasons(self) -> str:
        """Why nothing is left, in brackets for the end of a sentence; empty if there is nothing to say."""
        kinds = Counter(reason for _, reason in self.faults)
        parts = [f"{_count(count, 'unreadable entry', 'unreadable entries')}: {reason}" for reason, count in kinds.most_common(3)]
        parts += [_count(len(self.shards), "tar shard")] if self.shards else []
        parts += [self.told()] if self.passed_over else []
        return f" ({'; '.join(parts)})" if parts else ""


def find(places: Sequence[Path]) -> Found:
    """All that folders, image files and shards hold; raises DataError for a place that is not there, or is none of these."""
    found, visited, entries = Found(), set[str](), dict[str, Entry]()
    for entry in (entry for place in places for entry in walk(checked(place), visited)):
        entries.setdefault(entry.real, entry)  # of a file with two paths the first counts
    for entry in entries.values():
        found.add(entry)
    found.images.sort()
    found.shards.sort()
    return found


def find_images(places: Sequence[Path]) -> list[Path]:
    """All image files in folder trees (or single files), by the endings of their names, sorted; raises DataError for none."""
    found = find(places)
    if not found.images:
        raise no_images(places, found)
    return found.images


def no_images(places: Sequence[Path], found: Found) -> DataError:
    """The error for places without images."""
    named = shorten(f"'{place}'" for place in places) or "given"
    held = "The folder {} holds no images" if len(places) == 1 else "The folders {} hold no images"
    return DataError(f"{held.format(named)}{found.reasons()}.", f"Images are files that end in {', '.join(readable_suffixes())}.")


@cache
def readable_suffixes() -> tuple[str, ...]:
    """Endings of the image files that can be decoded here."""
    without: tuple[str, ...] = () if features.check("avif") else (".avif",)
    without += () if features.check("jpg_2000") else (".jp2",)
    without += () if importlib.util.find_spec("pillow_heif") is not None else (".heic", ".heif")
    return tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in without)


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image: not hidden, and with one of the known endings."""
    return not name.startswith(".") and Path(name).suffix.lower() in readable_suffixes()


def is_shard_name(name: str) -> bool:
    """Whether a file of this name counts as a shard."""
    return not name.startswith(".") and name.lower().endswith(SHARD_ENDINGS)


def checked(place: Path) -> Path:
    """Returns ``place`` if it is a folder, an image file or a shard; raises DataError if not."""
    try:
        if place.is_dir() or (place.is_file() and (is_image_name(place.name) or is_shard_name(place.name))):
            return place
        is_file = place.is_file()
    except OSError as error:  # a link to itself, or into a folder that may not be searched
        raise DataError(f"'{place}' cannot be read ({_reason(error)}).", "Give a folder that holds images.") from None
    if is_file:
        problem = f"'{place}' is neither a folder nor an image."
        raise DataError(problem, f"Give a folder, or a file that ends in {', '.join(readable_suffixes())}.")
    if place.is_symlink():
        raise DataError(f"'{place}' is {DEAD_LINK}.", "Mount what it leads to, or give another folder.")
    siblings = [path.name for path in place.parent.iterdir()] if place.parent.is_dir() else []
    problem = f"The folder '{place}' does not exist."
    raise DataError(problem, f"{suggest(place.name, siblings)} Give a folder that holds images.".strip())


def walk(place: Path, visited: set[str]) -> Iterator[Entry]:
    """The entries under a place, folder by folder, each sorted by name; ``visited`` keeps links from going in circles."""
    real = os.path.realpath(place)
    if not place.is_dir():
        yield Entry("image" if is_image_name(place.name) else "shard", place, real)
        return
    if real in visited:
        return
    visited.add(real)
    try:
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
    except OSError as error:
        yield Entry("fault", place, real, _reason(error))
        return
    if {entry.name for entry in entries}.issuperset(OUR_MANIFESTS):
        return
    for entry in entries:
        if not entry.name.startswith("."):
            yield from _entry(entry, place / entry.name, real, visited)


def _entry(entry: os.DirEntry[str], path: Path, folder: str, visited: set[str]) -> Iterator[Entry]:
    try:
        if entry.is_dir():
            yield from walk(path, visited)
            return
        # Only links need the disk again; realpath for every file would double the time on a million of them.
        is_link = entry.is_symlink()
        real = os.path.realpath(path) if is_link else str(Path(folder, entry.name))
        if is_link and not entry.is_file():
            os.stat(path)  # noqa: PTH116 - raises the reason
    except OSError as error:
        yield Entry("fault", path, str(path), _reason(error))
        return
    kind: Kind = "image" if is_image_name(entry.name) else "shard" if is_shard_name(entry.name) else "other"
    if kind == "other" or entry.is_file():
        yield Entry(kind, path, real)
    else:
        yield Entry("fault", path, real, "a pipe, a socket or a device, not a file")


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return DEAD_LINK
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    return (error.strerror or type(error).__name__).lower()
