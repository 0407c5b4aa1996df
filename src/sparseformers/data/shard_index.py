"""The index of a shard: its images and their places, so that any of them can be read without what lies before it.

It is made from the headers alone and kept in a JSON file; ``sparseformers pack`` writes it beside each shard.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sparseformers.data.shards import MOST_BYTES, NO_IMAGE, ShardMember, shard_members
from sparseformers.files import write_text

FORMAT = 1
"""Of the JSON file; a change to what it holds raises it."""
SIDECAR = ".json"
"""The ending of the file's name beside a shard, after the shard's own name."""
CUT_SHORT = "cut short, or damaged"
"""The problem of an image that the end of its shard is in the middle of."""
MOST_INDEX_BYTES = 2**30
"""No more of an index is read: an address may hold anything."""


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The images of a shard that can be tried, and its problems."""

    names: tuple[str, ...]
    """The images' paths in the shard, in their order."""
    starts: np.ndarray
    """Bytes of the unpacked shard before the content of each, int64."""
    sizes: np.ndarray
    """Bytes of each, int64."""
    problems: tuple[tuple[str, str], ...]
    """(path, reason) of members that are not to be tried; the path is empty for a damage of the shard itself."""
    bytes: int
    """Size of the unpacked shard."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_damaged(self) -> bool:
        """Whether something is missing of which nobody knows how much it was."""
        return any(not name for name, _ in self.problems)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, places and sizes, 32 hexadecimal digits of it."""
        return hashlib.sha256(_text(self).encode()).hexdigest()[:32]


def scan(tar: Path) -> ShardIndex:
    """Makes the index of an uncompressed tar file from its headers.

    A member that is no image counts as missing its image if no image has its key (the name up to the first dot): captions
    and the like beside an image are in order.

    Raises:
        DataError: if the file cannot be read.
    """
    size = tar.stat().st_size
    good: list[ShardMember] = []
    problems: list[tuple[str, str]] = []
    images: set[str] = set()
    others: dict[str, str] = {}
    for member in shard_members(str(tar), others=True):
        key = _key(member.name)
        if member.problem == NO_IMAGE:
            others.setdefault(key, member.name)
            continue
        images.add(key)
        problem = member.problem or (CUT_SHORT if member.start + member.size > size else None)
        if problem is None:
            good.append(member)
        else:
            problems.append((member.name, problem))
    problems += [(name, NO_IMAGE) for key, name in others.items() if key not in images and not _is_meta(key)]
    return ShardIndex(
        names=tuple(member.name for member in good),
        starts=np.array([member.start for member in good], dtype=np.int64),
        sizes=np.array([member.size for member in good], dtype=np.int64),
        problems=tuple(problems),
        bytes=size,
    )


def write_index(path: Path, index: ShardIndex) -> None:
    """Writes an index whole or not at all."""
    write_text(path, _text(index) + "\n")


def parse_index(text: str | bytes) -> ShardIndex | None:
    """The index in a file's text; None for anything that is no index, or a contradictory one."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            return None
        members, size = content["members"], int(content["bytes"])
        index = ShardIndex(
            names=tuple(str(name) for name, _, _ in members),
            starts=np.array([start for _, start, _ in members], dtype=np.int64),
            sizes=np.array([length for _, _, length in members], dtype=np.int64),
            problems=tuple((str(name), str(reason)) for name, reason in content["problems"]),
            bytes=size,
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    inside = (index.starts >= 0) & (index.sizes >= 0) & (index.sizes <= MOST_BYTES) & (index.starts <= size - index.sizes)
    return index if bool(inside.all()) else None


def read_index(path: Path) -> ShardIndex | None:
    """The index in a file; None if there is none."""
    try:
        with path.open("rb") as file:
            return parse_index(file.read(MOST_INDEX_BYTES))
    except OSError:
        return None


def index_beside(shard: Path, size: int, changed: int) -> ShardIndex | None:
    """The index in the file beside a local shard; None if there is none, or the shard is no longer what it is of.

    A tar file has room at its end, so something may have been added to one of the same size.

    Args:
        shard: an uncompressed tar file.
        size: its bytes.
        changed: its time of change in nanoseconds.
    """
    beside = Path(f"{shard}{SIDECAR}")
    index = read_index(beside)
    return None if index is None or index.bytes != size or beside.stat().st_mtime_ns < changed else index


def _text(index: ShardIndex) -> str:
    members = zip(index.names, index.starts.tolist(), index.sizes.tolist(), strict=True)
    content = {"format": FORMAT, "bytes": index.bytes, "members": list(members), "problems": index.problems}
    return json.dumps(content, separators=(",", ":"))


def _key(name: str) -> str:
    """The key of the sample that a member belongs to: its path up to the first dot of the file's name."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0])


def _is_meta(key: str) -> bool:
    """Whether webdataset takes a member for a remark on the shard and not for a sample."""
    base = posixpath.basename(key)
    return base.startswith("__") and base.endswith("__")
