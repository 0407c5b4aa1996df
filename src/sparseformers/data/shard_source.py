"""Images in tar shards, read by their places in the shards' indices."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sparseformers.data.images import MOST_PIXELS, UnreadableImageError, decode
from sparseformers.data.order import PassOrder, WindowShuffle
from sparseformers.data.places import Found
from sparseformers.data.shard_files import ShardFiles
from sparseformers.data.shards import CUT_SHORT, ShardIndex
from sparseformers.data.sources import ImageSource, digest_of
from sparseformers.errors import DataError

INDEXED_AT_ONCE = 8  # shards whose indices are read side by side: remote ones are waited for


class _Shard(NamedTuple):
    """A summary of a shard's index, which is read again when it is needed."""

    address: str  # or path
    images: int
    bytes: int  # unpacked
    digest: str
    problems: tuple[tuple[str, str], ...]
    is_damaged: bool

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]


class ShardSource(ImageSource):
    """Images in tar shards, ``window`` shuffled together; ``found`` is what lies beside them where there are no images.

    Raises DataError if a shard cannot be reached, or copies have too little room.
    """

    def __init__(
        self, shards: Sequence[str], files: ShardFiles, *, window: int, most_pixels: int = MOST_PIXELS, found: Found | None = None
    ) -> None:
        self.files, self.window, self.most_pixels, self.found = files, window, most_pixels, found or Found()
        with ThreadPoolExecutor(INDEXED_AT_ONCE) as pool:
            self.shards = list(pool.map(self._summary, shards))
        self.bounds = np.concatenate([[0], np.cumsum([shard.images for shard in self.shards], dtype=np.int64)])
        # Where one window ends, shards of the next one are read already.
        sizes = sorted((shard.bytes for shard in self.shards if files.is_copied(shard.address)), reverse=True)[: 2 * window]
        if sum(sizes) > files.most_bytes:
            problem = f"Copies of up to {len(sizes)} shards are needed at a time, {sum(sizes) / 2**30:.3g} GiB, but "
            problem += f"--shard-cache-gb allows {files.most_bytes / 2**30:.3g}."
            raise DataError(problem, "Raise it, or lower --shuffle-shards.")

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def name(self, index: int) -> str:
        shard, row = self._place(index)
        return f"{shard.address}:{self._index(shard).names[row]}"

    def key(self, index: int) -> str:
        shard, row = self._place(index)
        return f"{shard.name}:{self._index(shard).names[row]}"

    def read(self, index: int, *, at_least: int | None = None) -> Image.Image:
        shard, row = self._place(index)
        content = self._index(shard)
        name, size = Path(content.names[row]), int(content.sizes[row])
        data = self.files.read(shard.address, int(content.starts[row]), size)
        if len(data) < size:
            raise UnreadableImageError(name, CUT_SHORT)
        return decode(BytesIO(data), name, at_least=at_least, most_pixels=self.most_pixels)

    def size(self, index: int) -> int | None:
        shard, row = self._place(index)
        return int(self._index(shard).sizes[row])

    def faults(self) -> Sequence[tuple[str, str]]:
        pairs = [(shard, *problem) for shard in self.shards for problem in shard.problems]
        told = [(f"{shard.address}:{name}" if name else shard.address, reason) for shard, name, reason in pairs]
        return [*self.found.faults, *told]

    def missing(self) -> int:
        """A damaged shard is taken to lack as many images as it has fewer than the median of the whole ones, at least one."""
        whole = [shard.images for shard in self.shards if not shard.is_damaged]
        usual = int(np.median(whole)) if whole else 0
        found = sum(bool(name) for shard in self.shards for name, _ in shard.problems)
        return len(self.found.faults) + found + sum(max(1, usual - shard.images) for shard in self.shards if shard.is_damaged)

    def order(self) -> PassOrder:
        return WindowShuffle(self.bounds, self.window)

    def identity(self) -> list[Any]:
        return [[shard.name, shard.digest, self.files.state(shard.address)] for shard in self.shards]

    def digest(self) -> str:
        return digest_of(f"{shard.name} {shard.digest}" for shard in self.shards)

    def _summary(self, address: str) -> _Shard:
        index = self.files.index(address)
        return _Shard(address, len(index), index.bytes, index.digest, index.problems, index.is_damaged)

    def _place(self, index: int) -> tuple[_Shard, int]:
        """The shard of an image, and its row in the shard's index."""
        number = int(np.searchsorted(self.bounds, index, side="right")) - 1
        return self.shards[number], index - int(self.bounds[number])

    def _index(self, shard: _Shard) -> ShardIndex:
        index = self.files.index(shard.address)
        if index.digest != shard.digest:
            problem = f"The shard '{shard.address}' was changed after the start."
            raise DataError(problem, "Start again when all shards are in place.")
        return index
