"""Fixed views of the training images with the teacher's embeddings of them, so that many runs share one teacher's work.

A cache is a folder, named by a digest of everything that its content depends on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparseformers.data import Batch, SampleStream, ViewKey
from sparseformers.data.images import MOST_PIXELS
from sparseformers.data.sources import ImageSource
from sparseformers.data.transforms import SMALLEST_CROPS
from sparseformers.settings import to_dict
from sparseformers.teachers import Teacher
from sparseformers.train.settings import BootstrapConfig

FORMAT = 1  # of the cache's files; a change to what they hold raises it
LIBRARIES = ("pillow", "torch", "torchvision")  # that views are made with: another version may draw or resize otherwise

IMAGES = "images.npy"  # K x images x 3 x H x W bytes; zeros for a view that is missing
EMBEDDINGS = "embeddings.npy"  # K x images x D_out float32; zeros for a view that is missing
MAPS = "attention_maps.npy"  # K x images x h x w float16, where the student has a map to learn
TOKENS = "patch_tokens.npy"  # K x images x D x h x w float16, where the student learns maps of features
UNREADABLE = "unreadable.json"  # a list of [epoch, index, reason], one for each view that is missing
KEY = "key.json"  # the content of the cache's key

LOGGER = logging.getLogger("sparseformers")


@dataclass(frozen=True)
class CacheKey:
    """Two caches of the same key hold the same views and embeddings."""

    content: Mapping[str, Any]  # plain JSON values, compared in full before a cache is used
    epochs: int  # K, the views of each image
    images: int
    size: tuple[int, int]  # height and width of the views in pixels
    width: int  # D_out, channels of the teacher's embedding
    maps: tuple[int, int] | None = None  # h x w of the teacher's attention maps; None without them
    tokens: tuple[int, int, int] | None = None  # D x h x w of its patch tokens; None without them

    @cached_property
    def digest(self) -> str:
        """The name of the cache's folder: 32 hexadecimal digits."""
        return hashlib.blake2b(json.dumps(self.content, sort_keys=True).encode(), digest_size=16).hexdigest()

    @property
    def arrays(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Type and shape of the array in each of the large files."""
        views = (self.epochs, self.images)
        kept: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
            IMAGES: (np.dtype(np.uint8), (*views, 3, *self.size)),
            EMBEDDINGS: (np.dtype(np.float32), (*views, self.width)),
        }
        others = {MAPS: self.maps, TOKENS: self.tokens}
        return kept | {name: (np.dtype(np.float16), (*views, *shape)) for name, shape in others.items() if shape is not None}

    @property
    def views(self) -> int:
        return self.epochs * self.images

    @property
    def bytes(self) -> int:
        """Size of the arrays, beside which the other files do not count."""
        return sum(kind.itemsize * math.prod(shape) for kind, shape in self.arrays.values())


def make_cache_key(
    settings: BootstrapConfig,
    teacher: Teacher,
    *,
    fingerprint: str,
    precision: str,
    images: ImageSource,
    has_map: bool = False,
    dense_layer: int | None = None,
) -> CacheKey:
    """The key of a run's views; ``fingerprint`` is of the teacher's weights, ``images`` are in the order of the samples.

    With ``has_map`` the cache holds the teacher's attention, with a ``dense_layer`` its patch tokens of that layer.
    """
    data, width = settings.data, teacher.anatomy.embedding_width
    content: dict[str, Any] = {
        "format": FORMAT,
        "teacher": {
            # The same weights give other embeddings with another activation, or another normalisation of pixels.
            "fingerprint": fingerprint,
            "adapter": type(teacher).__name__,
            "anatomy": to_dict(teacher.anatomy),
            "preprocessing": to_dict(teacher.preprocessing),
        },
        "augment": data.augment,
        "seed": settings.views_seed,
        "cached_views": data.cached_views,
        "precision": precision,
        # What follows the plus sign is where a library was built for, not what it does.
        "libraries": {library: version(library).partition("+")[0] for library in LIBRARIES},
        "images": images.identity(),
    }
    if data.crop_scale not in (None, SMALLEST_CROPS[data.augment]):  # else caches from before there was a choice hold
        content["crop_scale"] = data.crop_scale
    if data.max_pixels != MOST_PIXELS:
        content["max_pixels"] = data.max_pixels
    if has_map:
        content["attention_maps"] = True
    if dense_layer is not None:
        content["patch_tokens"] = dense_layer
    maps = teacher.grid if has_map else None
    tokens = None if dense_layer is None else (teacher.anatomy.block.width, *teacher.grid)
    return CacheKey(content, data.cached_views, len(images), teacher.preprocessing.size, width, maps, tokens)


class DamagedCacheError(Exception):
    """A folder that should hold a cache of views holds something else; the message says in a few words what is wrong."""


@dataclass(frozen=True)
class ViewCache:
    """The views of the first K epochs, mapped from files: epoch e of a training sees view e mod K of each image."""

    folder: Path  # named by the key's digest
    images: np.ndarray  # K x images x 3 x H x W uint8, read-only
    embeddings: np.ndarray  # K x images x D_out float32, read-only
    unreadable: Mapping[tuple[int, int], str]  # why the view (epoch, index) is missing, for those that are
    attention_maps: np.ndarray | None = None  # K x images x h x w float16, read-only, if there are any
    tokens: np.ndarray | None = None  # K x images x D x h x w float16, read-only, if there are any

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
            attention_maps=None if self.attention_maps is None else torch.from_numpy(self.attention_maps[epochs, indices]),
            tokens=None if self.tokens is None else torch.from_numpy(self.tokens[epochs, indices]),
        )

    def batches(self, stream: SampleStream) -> Generator[Batch]:
        """The batches of ``stream``, which counts the same images."""
        for keys in stream:
            yield self.batch(keys)


def open_cache(folder: Path, key: CacheKey) -> ViewCache | None:
    """The cache of ``key``; None if there is no such folder. Raises DamagedCacheError if it holds anything else than that."""
    if not folder.is_dir():
        return None
    try:
        if json.loads((folder / KEY).read_text(encoding="utf-8")) != key.content:
            raise DamagedCacheError(f"its {KEY} is of something else")
        rows = json.loads((folder / UNREADABLE).read_text(encoding="utf-8"))
        arrays = {name: _mapped(folder / name, *form) for name, form in key.arrays.items()}
        return ViewCache(
            folder=folder,
            images=arrays[IMAGES],
            embeddings=arrays[EMBEDDINGS],
            attention_maps=arrays.get(MAPS),
            tokens=arrays.get(TOKENS),
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
