"""Fixed views of the training images with the teacher's embeddings of them, so that many runs share one teacher's work."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sparseformers.data import Batch, SampleStream, ViewKey
from sparseformers.train.cache.key import CacheKey

IMAGES = "images.npy"
"""K x images x 3 x H x W bytes; zeros for a view that is missing."""
EMBEDDINGS = "embeddings.npy"
"""K x images x D_out float32; zeros for a view that is missing."""
UNREADABLE = "unreadable.json"
"""A list of [epoch, index, reason], one for each view that is missing."""
KEY = "key.json"
"""The content of the cache's key."""

LOGGER = logging.getLogger("sparseformers")


class DamagedCacheError(Exception):
    """A folder that should hold a cache of views holds something else; the message says what is wrong, in a few words."""


@dataclass(frozen=True)
class ViewCache:
    """The views of the first K epochs, mapped from files: epoch e of a training sees view e mod K of each image."""

    folder: Path
    """Where it is; its name is the key's digest."""
    images: np.ndarray
    """K x images x 3 x H x W uint8, read-only."""
    embeddings: np.ndarray
    """K x images x D_out float32, read-only."""
    unreadable: Mapping[tuple[int, int], str]
    """Why the view (epoch, index) is missing, for those that are."""

    def batch(self, keys: Sequence[ViewKey]) -> Batch:
        """The views of these keys with the teacher's embeddings of them, in their order."""
        places = [(key.epoch % len(self.images), key.index) for key in keys]
        missing = [place for place in places if place in self.unreadable]
        readable = [place for place in places if place not in self.unreadable]
        epochs, indices = np.array(readable, dtype=np.int64).reshape(-1, 2).T
        return Batch(
            images=torch.from_numpy(self.images[epochs, indices]) if readable else torch.empty(0, 3, 0, 0),
            indices=torch.from_numpy(indices.copy()),
            unreadable=tuple((index, self.unreadable[epoch, index]) for epoch, index in missing),
            targets=torch.from_numpy(self.embeddings[epochs, indices]),
        )

    def batches(self, stream: SampleStream) -> Iterator[Batch]:
        """The batches of ``stream``, over as many images as the cache is of."""
        for keys in stream:
            yield self.batch(keys)


def open_cache(folder: Path, key: CacheKey) -> ViewCache | None:
    """The cache of ``key`` in ``folder``; None if there is no such folder.

    Raises:
        DamagedCacheError: if there is, but it holds anything else than a whole cache of this key.
    """
    if not folder.is_dir():
        return None
    try:
        if json.loads((folder / KEY).read_text(encoding="utf-8")) != key.content:
            raise DamagedCacheError(f"its {KEY} is of something else")
        rows = json.loads((folder / UNREADABLE).read_text(encoding="utf-8"))
        return ViewCache(
            folder=folder,
            images=_mapped(folder / IMAGES, np.dtype(np.uint8), key.images_shape),
            embeddings=_mapped(folder / EMBEDDINGS, np.dtype(np.float32), key.embeddings_shape),
            unreadable={(int(epoch), int(index)): str(reason) for epoch, index, reason in rows},
        )
    except (OSError, ValueError, TypeError) as error:
        raise DamagedCacheError(f"{type(error).__name__}: {error}") from error


def _mapped(path: Path, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The array in an .npy file, mapped read-only."""
    array = np.lib.format.open_memmap(path, mode="r")
    if array.dtype != kind or array.shape != shape or path.stat().st_size != array.offset + array.nbytes:
        raise DamagedCacheError(f"{path.name} holds {array.dtype} {array.shape}, not {kind} {shape}")
    return array
