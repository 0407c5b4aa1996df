"""Images in tar shards, read by their places in the shards' indices."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
from PIL import Image

from sparseformers.data.images import MOST_PIXELS, UnreadableImageError
from sparseformers.data.order import PassOrder, WindowShuffle
from sparseformers.data.shard_files import ShardFiles
from sparseformers.data.shard_index import CUT_SHORT, ShardIndex
from sparseformers.data.shards import SHARD_ENDINGS, decode_member, expand_shards, is_local
from sparseformers.data.sources import ImageSource, digest_of
from sparseformers.errors import DataError

INDEXED_AT_ONCE = 8
"""Shards whose indices are read side by side: those of remote ones take time to come, but no work."""


class _Shard(NamedTuple):
    """A summary of a shard's index, which itself is read again when it is needed."""

    address: str
    """A path, or an address."""
    images: int
    bytes: int
    """Unpacked size."""
    digest: str
    problems: tuple[tuple[str, str], ...]
    is_damaged: bool


class ShardSource(ImageSource):
    """Images in tar shards, shard by shard in the order that these are given in.

    Args:
        shards: paths and addresses of them.
        files: to read them by.
        window: how many of them are shuffled together.
        most_pixels: of an image; a larger one counts as unreadable.

    Raises:
        DataError: if one of them cannot be reached.
    """

    def __init__(
        self,
        shards: Sequence[str],
        files: ShardFiles,
        *,
        window: int,
        most_pixels: int = MOST_PIXELS,
    ) -> None:
        self.files = files
        self.window = window
        self.most_pixels = most_pixels
        with ThreadPoolExecutor(INDEXED_AT_ONCE) as pool:
            self.shards = list(pool.map(self._summary, shards))
        self.bounds = np.concatenate([[0], np.cumsum([shard.images for shard in self.shards], dtype=np.int64)])
        self._require_room()

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def name(self, index: int) -> str:
        shard, _, row = self._place(index)
        return f"{shard.address}:{self._index(shard).names[row]}"

    def key(self, index: int) -> str:
        shard, _, row = self._place(index)
        return f"{shard.address.rpartition('/')[2]}:{self._index(shard).names[row]}"

    def read(self, index: int, *, at_least: int | None = None) -> Image.Image:
        shard, _, row = self._place(index)
        content = self._index(shard)
        size = int(content.sizes[row])
        name = Path(content.names[row])
        data = self.files.read(shard.address, int(content.starts[row]), size)
        if len(data) < size:
            raise UnreadableImageError(name, CUT_SHORT)
        return decode_member(data, name, at_least=at_least, most_pixels=self.most_pixels)

    def size(self, index: int) -> int | None:
        shard, _, row = self._place(index)
        return int(self._index(shard).sizes[row])

    def faults(self) -> Sequence[tuple[str, str]]:
        return [
            (f"{shard.address}:{name}" if name else shard.address, reason)
            for shard in self.shards
            for name, reason in shard.problems
        ]

    def missing(self) -> int:
        """A shard that breaks off is taken to lack what it has less than the median of the others, and one image at least."""
        whole = [shard.images for shard in self.shards if not shard.is_damaged]
        usual = int(np.median(whole)) if whole else 0
        found = sum(bool(name) for shard in self.shards for name, _ in shard.problems)
        return found + sum(max(1, usual - shard.images) for shard in self.shards if shard.is_damaged)

    def order(self) -> PassOrder:
        return WindowShuffle(self.bounds, self.window)

    def identity(self) -> list[Any]:
        names = (shard.address.rpartition("/")[2] for shard in self.shards)
        states = (self.files.state(shard.address) for shard in self.shards)
        return [[name, shard.digest, state] for name, shard, state in zip(names, self.shards, states, strict=True)]

    def digest(self) -> str:
        return digest_of(f"{shard.address.rpartition('/')[2]} {shard.digest}" for shard in self.shards)

    def _summary(self, address: str) -> _Shard:
        index = self.files.index(address)
        return _Shard(address, len(index), index.bytes, index.digest, index.problems, index.is_damaged)

    def _place(self, index: int) -> tuple[_Shard, int, int]:
        """The shard of an image, its number, and the image's row in it."""
        number = int(np.searchsorted(self.bounds, index, side="right")) - 1
        return self.shards[number], number, index - int(self.bounds[number])

    def _index(self, shard: _Shard) -> ShardIndex:
        index = self.files.index(shard.address)
        if index.digest != shard.digest:
            raise DataError(
                f"The shard '{shard.address}' was changed after the start.", "Start again when all shards are in place."
            )
        return index

    def _require_room(self) -> None:
        """Raises DataError if the folder for copies cannot hold the shards that are read at a time."""
        sizes = sorted((shard.bytes for shard in self.shards if self.files.is_copied(shard.address)), reverse=True)
        # Where one window ends, shards of the next one are read already.
        needed = sum(sizes[: 2 * self.window])
        if needed > self.files.most_bytes:
            raise DataError(
                f"Copies of up to {min(2 * self.window, len(sizes))} shards are needed at a time, {needed / 2**30:.3g} GiB, but "
                f"--shard-cache-gb allows {self.files.most_bytes / 2**30:.3g}.",
                "Raise it, or lower --shuffle-shards.",
            )


def find_shards(data: str) -> list[str]:
    """The shards of a pattern, an address or a folder of tar files; files by absolute paths.

    Raises:
        ConfigError: if a pattern cannot be understood.
        DataError: if a file is missing.
        MissingExtraError: if webdataset is needed and not installed.
    """
    if Path(data).is_dir():
        return [str(path.absolute()) for path in sorted(Path(data).iterdir()) if is_shard_name(path.name) and path.is_file()]
    shards = expand_shards(url2pathname(urlparse(data).path) if data.startswith("file://") else data)
    return [str(Path(shard).absolute()) if is_local(shard) else shard for shard in shards]


def is_shard_name(name: str) -> bool:
    """Whether a file of this name counts as a shard."""
    return not name.startswith(".") and name.endswith(SHARD_ENDINGS)
