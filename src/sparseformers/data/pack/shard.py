"""Writing one shard: the same bytes for the same images every time, and nothing is kept that was not read again.

By the standard library's tarfile, because webdataset's writer gives shards their names before they are whole.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from sparseformers.data.pack.images import PackedImage
from sparseformers.data.shard_index import ShardIndex, scan
from sparseformers.errors import RunError

BLOCK = 2**20
"""Bytes that are read at a time to check a shard."""


@dataclass(frozen=True)
class PackedShard:
    """A finished shard."""

    name: str
    """Of the file."""
    images: int
    """How many are in it."""
    bytes: int
    """Its size."""
    sha256: str
    """Of the file."""


class OpenShard:
    """A shard that is being written.

    Args:
        path: of the file to write; its folder is there.
        most_bytes: that it may have.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self.path = path
        self.most_bytes = most_bytes
        self._file = path.open("wb")
        self._archive = tarfile.open(fileobj=self._file, mode="w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
        self._written: list[tuple[str, int, bytes]] = []

    def __len__(self) -> int:
        """How many images are in it."""
        return len(self._written)

    def has_room(self, image: PackedImage) -> bool:
        """Whether an image still fits; the first one always does."""
        blocks = len(_header(image).tobuf(tarfile.GNU_FORMAT)) + _rounded(len(image.content), tarfile.BLOCKSIZE)
        end = self._archive.offset + blocks + 2 * tarfile.BLOCKSIZE
        return not self._written or _rounded(end, tarfile.RECORDSIZE) <= self.most_bytes

    def add(self, image: PackedImage) -> None:
        """Appends an image."""
        self._archive.addfile(_header(image), io.BytesIO(image.content))
        self._archive.members.clear()  # type: ignore[attr-defined]  # or it would remember them all
        self._written.append((image.name, len(image.content), hashlib.sha256(image.content).digest()))

    def close(self) -> None:
        """Ends the file without checking it."""
        self._file.close()

    def finish(self, name: str) -> tuple[PackedShard, ShardIndex]:
        """Ends the file, reads it again, and describes it.

        Args:
            name: that it will have.

        Raises:
            RunError: if it does not hold what was written to it.
        """
        self._archive.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        index = scan(self.path)
        sizes = list(zip(index.names, index.sizes.tolist(), strict=True))
        if index.problems or sizes != [(member, size) for member, size, _ in self._written]:
            raise _not_as_written(name, f"it holds {len(index):,} images instead of {len(self):,}")
        with self.path.open("rb") as file:
            for (member, size, digest), start in zip(self._written, index.starts.tolist(), strict=True):
                file.seek(start)
                if hashlib.sha256(file.read(size)).digest() != digest:
                    raise _not_as_written(name, f"'{member}' has other bytes")
            file.seek(0)
            whole = hashlib.sha256()
            while block := file.read(BLOCK):
                whole.update(block)
        return PackedShard(name, len(self), index.bytes, whole.hexdigest()), index


def _header(image: PackedImage) -> tarfile.TarInfo:
    """A header without times and owners: they would make other bytes of the same images."""
    info = tarfile.TarInfo(image.name)
    info.size = len(image.content)
    return info


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _not_as_written(name: str, how: str) -> RunError:
    return RunError(
        f"The shard '{name}' was not written as it should be: {how}.", "Check the disk; the same command makes it again."
    )
