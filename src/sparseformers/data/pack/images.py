"""Which images go into the shards, by which names, and as which bytes."""

from __future__ import annotations

import hashlib
import io
import posixpath
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from sparseformers.data.images import UnreadableImageError, find_images
from sparseformers.data.pack.config import PackConfig
from sparseformers.data.shards import MOST_BYTES, decode_member
from sparseformers.data.sources import common_folder, digest_of, relative_names

AHEAD = 4
"""Images in preparation for each thread: few, as each is held in memory."""
DRAFT = 2
"""A JPEG is decoded with sides of at least so many times what they are shrunk to, which cannot be told from the whole."""


class PackedImage(NamedTuple):
    """One image for a shard, or why there is none."""

    name: str
    """In the shard."""
    path: Path
    """Where it comes from."""
    content: bytes
    """Of the member; empty where there is a problem."""
    problem: str | None
    """Why it is left out."""


class ImageList:
    """All images to pack, in the order in which they are packed.

    Args:
        config: of the packing.

    Raises:
        DataError: if the folder is missing or holds no images.
    """

    def __init__(self, config: PackConfig) -> None:
        paths = find_images([config.folder])
        root = str(config.folder.absolute()) if config.folder.is_dir() else common_folder(paths)
        pairs = list(zip(relative_names(paths, root), paths, strict=True))
        if not config.keep_order:
            pairs.sort(key=lambda pair: (_draw(pair[0], config.seed), pair[0]))
        self.paths = [path for _, path in pairs]
        self.sources = [name for name, _ in pairs]

    def __len__(self) -> int:
        return len(self.paths)

    def names(self) -> list[str]:
        """Their names in the shards: a path without dots but the last, and no two the same but for it.

        WebDataset takes what comes before the first dot of a file's name for the sample's key.
        """
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
        states = (path.stat() for path in self.paths)
        return digest_of(
            f"{name}\t{state.st_size}\t{state.st_mtime_ns}" for name, state in zip(self.sources, states, strict=True)
        )


def prepared(names: Sequence[str], paths: Sequence[Path], config: PackConfig, *, threads: int) -> Iterator[PackedImage]:
    """Reads and checks images, and shrinks them if asked to, in their order.

    Args:
        names: of the members.
        paths: of the files.
        config: of the packing.
        threads: that work side by side; decoding and shrinking do not hold each other up.
    """
    pairs = iter(zip(names, paths, strict=True))
    with ThreadPoolExecutor(threads) as pool:
        pending = deque(pool.submit(_prepared, name, path, config) for name, path in islice(pairs, threads * AHEAD))
        try:
            while pending:
                image = pending.popleft().result()
                pending.extend(pool.submit(_prepared, name, path, config) for name, path in islice(pairs, 1))
                yield image
        finally:
            for future in pending:
                future.cancel()


def _prepared(name: str, path: Path, config: PackConfig) -> PackedImage:
    try:
        if path.stat().st_size > MOST_BYTES:
            return PackedImage(name, path, b"", f"too large: more than {MOST_BYTES // 2**20} MiB")
        content = path.read_bytes()
        if config.resize is None:
            # To its end, but at the lowest resolution: what is cut short or damaged shows.
            decode_member(content, path, at_least=1, most_pixels=config.max_pixels)
            return PackedImage(name, path, content, None)
        image = decode_member(content, path, at_least=DRAFT * config.resize, most_pixels=config.max_pixels)
        if min(image.size) <= config.resize:
            return PackedImage(name, path, content, None)
        return PackedImage(f"{name.rpartition('.')[0]}.jpg", path, _shrunk(image, config.resize, config.quality), None)
    except UnreadableImageError as error:
        return PackedImage(name, path, b"", error.reason)
    except OSError as error:
        return PackedImage(name, path, b"", (error.strerror or str(error)).lower())


def _shrunk(image: Image.Image, shorter: int, quality: int) -> bytes:
    """The image with a shorter side of ``shorter`` pixels, as a JPEG."""
    scale = shorter / min(image.size)
    size = (max(shorter, round(image.width * scale)), max(shorter, round(image.height * scale)))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _draw(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\n{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
