"""Writes images to shards: the same bytes for the same images; each shard is read again and checked.

The standard library's tarfile does it, because webdataset's writer gives shards their names before they are whole.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
import tarfile
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from sparseformers.data.images import UnreadableImageError, decode
from sparseformers.data.places import find, no_images
from sparseformers.data.shards import MOST_BYTES, ShardIndex, scan
from sparseformers.data.sources import common_folder, digest_of, draw_of, relative_names, state_of
from sparseformers.errors import RunError
from sparseformers.files import sha256_of, synchronise

if TYPE_CHECKING:
    from sparseformers.data.pack.run import PackConfig

AHEAD = 4  # images that each thread prepares ahead, held in memory
DRAFT = 2  # a JPEG is decoded with sides of at least so many times those of its target, which makes no visible difference


class ImageList:
    """All images of a folder (``found``) in a random order, or by their names without ``seed``; raises DataError for none."""

    def __init__(self, folder: Path, seed: int | None) -> None:
        self.found = find([folder])
        if not self.found.images:
            raise no_images([folder], self.found)
        paths = self.found.images
        root = str(folder.absolute()) if folder.is_dir() else common_folder(paths)
        pairs = list(zip(relative_names(paths, root), paths, strict=True))
        if seed is not None:
            pairs.sort(key=lambda pair: (draw_of(pair[0], seed), pair[0]))
        self.paths = [path for _, path in pairs]
        self.sources = [name for name, _ in pairs]

    def __len__(self) -> int:
        return len(self.paths)

    def names(self) -> list[str]:
        """The names in the shards: WebDataset's key of a sample ends at the first dot, so no other dots, and no key twice."""
        taken: set[str] = set()
        names = []
        for source in self.sources:
            folder, base = posixpath.split(source)
            stem, dot, suffix = base.rpartition(".")
            key = posixpath.join(folder, stem.replace(".", "_"))
            number, free = 1, key
            while free in taken:
                number, free = number + 1, f"{key}_{number + 1}"
            taken.add(free)
            names.append(f"{free}{dot}{suffix.lower()}")
        return names

    def digest(self) -> str:
        """32 hexadecimal digits that belong to all names, sizes and times of change."""
        states = (state_of(path) for path in self.paths)
        return digest_of(f"{name}\t{size}\t{changed}" for name, (size, changed) in zip(self.sources, states, strict=True))


class PackedImage(NamedTuple):
    """One image for a shard, or the problem with it."""

    name: str  # the member's path in the shard
    path: Path
    content: bytes  # empty if there is a problem
    problem: str | None


def prepared(pairs: Iterator[tuple[str, Path]], config: PackConfig, *, threads: int) -> Generator[PackedImage, None, None]:
    """Reads, checks and shrinks images (name in the shard, file) in their order, by so many threads."""
    with ThreadPoolExecutor(threads) as pool:
        pending = deque(pool.submit(_prepared, *pair, config) for pair in islice(pairs, threads * AHEAD))
        try:
            while pending:
                image = pending.popleft().result()
                pending.extend(pool.submit(_prepared, *pair, config) for pair in islice(pairs, 1))
                yield image
        finally:
            for future in pending:
                future.cancel()


def _prepared(name: str, path: Path, config: PackConfig) -> PackedImage:
    side = config.resize
    try:
        if path.stat().st_size > MOST_BYTES:
            return PackedImage(name, path, b"", f"too large: more than {MOST_BYTES // 2**20} MiB")
        content = path.read_bytes()
        # Decodes all of it, even if only at the lowest resolution, so that damage shows.
        at_least = 1 if side is None else DRAFT * side
        image = decode(io.BytesIO(content), path, at_least=at_least, most_pixels=config.max_pixels)
        if side is None or min(image.size) <= side:
            return PackedImage(name, path, content, None)
        scale, file = side / min(image.size), io.BytesIO()
        size = (max(side, round(image.width * scale)), max(side, round(image.height * scale)))
        image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=config.quality)
        return PackedImage(f"{name.rpartition('.')[0]}.jpg", path, file.getvalue(), None)
    except UnreadableImageError as error:
        return PackedImage(name, path, b"", error.reason)
    except OSError as error:
        return PackedImage(name, path, b"", (error.strerror or str(error)).lower())


@dataclass(frozen=True)
class PackedShard:
    """A finished shard."""

    name: str
    images: int
    bytes: int
    sha256: str  # of the whole file


class OpenShard:
    """A shard that is being written, of at most so many bytes."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self.path, self.most_bytes = path, most_bytes
        self._file = path.open("wb")
        self._archive = tarfile.open(fileobj=self._file, mode="w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
        self._written: list[tuple[str, int, bytes]] = []

    def __len__(self) -> int:
        return len(self._written)

    def has_room(self, image: PackedImage) -> bool:
        """Whether an image still fits; the first one always does."""
        blocks = len(_header(image).tobuf(tarfile.GNU_FORMAT)) + _rounded(len(image.content), tarfile.BLOCKSIZE)
        end = self._archive.offset + blocks + 2 * tarfile.BLOCKSIZE
        return not self._written or _rounded(end, tarfile.RECORDSIZE) <= self.most_bytes

    def add(self, image: PackedImage) -> None:
        self._archive.addfile(_header(image), io.BytesIO(image.content))
        self._archive.members.clear()  # type: ignore[attr-defined]  # or it would remember them all
        self._written.append((image.name, len(image.content), hashlib.sha256(image.content).digest()))

    def close(self) -> None:
        self._file.close()

    def finish(self, name: str) -> tuple[PackedShard, ShardIndex]:
        """Closes the file, reads it again, and describes it under its final name; RunError if it is not as it was written."""
        self._archive.close()
        self._file.close()
        synchronise(self.path)
        index = scan(self.path)
        sizes = list(zip(index.names, index.sizes.tolist(), strict=True))
        if index.problems or sizes != [(member, size) for member, size, _ in self._written]:
            raise _not_as_written(name, f"it holds {len(index):,} images instead of {len(self):,}")
        with self.path.open("rb") as file:
            for (member, size, digest), start in zip(self._written, index.starts.tolist(), strict=True):
                file.seek(start)
                if hashlib.sha256(file.read(size)).digest() != digest:
                    raise _not_as_written(name, f"'{member}' has other bytes")
        return PackedShard(name, len(self), index.bytes, sha256_of(self.path)), index


def _header(image: PackedImage) -> tarfile.TarInfo:
    """A header without times and owners: they would make other bytes of the same images."""
    info = tarfile.TarInfo(image.name)
    info.size = len(image.content)
    return info


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _not_as_written(name: str, how: str) -> RunError:
    problem = f"The shard '{name}' was not written as it should be: {how}."
    return RunError(problem, "Check the disk; the same command makes it again.")
