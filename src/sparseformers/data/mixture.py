"""One source of images for all names given to --data: folders, tar shards, Hugging Face datasets, and mixtures of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparseformers.data.huggingface_datasets import PREFIX, DatasetName, HuggingFaceSource
from sparseformers.data.images import MOST_PIXELS
from sparseformers.data.order import Interleaved, whole_weights
from sparseformers.data.places import find, no_images
from sparseformers.data.shard_files import ShardFiles
from sparseformers.data.shard_source import ShardSource
from sparseformers.data.shards import find_shards, is_local, is_shards
from sparseformers.data.sources import DerivedSource, FolderSource, ImageSource, digest_of, draw_of
from sparseformers.errors import ConfigError, DataError, shorten

Kind = Literal["folder", "shards", "dataset"]


class MixedSource(DerivedSource):
    """Images of several sources, one source after the other; ``weights`` are their shares of the samples (default: sizes)."""

    def __init__(self, sources: Sequence[ImageSource], weights: Sequence[float] | None = None) -> None:
        self.sources = tuple(sources)
        self.weights = None if weights is None else tuple(weights)
        self.bounds = np.concatenate([[0], np.cumsum([len(source) for source in self.sources], dtype=np.int64)])

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def place(self, index: int) -> tuple[ImageSource, int]:
        number = int(np.searchsorted(self.bounds, index, side="right")) - 1
        return self.sources[number], index - int(self.bounds[number])

    def sample_order(self) -> Interleaved:
        weights = self.bounds[1:] - self.bounds[:-1] if self.weights is None else self.weights
        if not all(map(len, self.sources)):
            raise DataError("One of the sources of --data has no image left to learn from.", "Leave it out.")
        return Interleaved(tuple(source.order() for source in self.sources), whole_weights([float(weight) for weight in weights]))

    def only(self, places: Sequence[int]) -> ImageSource:
        return MixedSource([source.only(own) for source, own in self._parted(places)], self.weights)

    def without(self, places: Sequence[int]) -> ImageSource:
        return MixedSource([source.without(own) for source, own in self._parted(places)], self.weights)

    def identity(self) -> list[Any]:
        return [source.identity() for source in self.sources]

    def digest(self) -> str:
        return digest_of(source.digest() for source in self.sources)

    def _parted(self, places: Sequence[int]) -> list[tuple[ImageSource, list[int]]]:
        """Increasing places among all images by their sources, counted from the beginning of each."""
        parts = zip(self.sources, pairwise(np.searchsorted(places, self.bounds).tolist()), self.bounds[:-1], strict=True)
        return [(source, [int(place - before) for place in places[begin:end]]) for source, (begin, end), before in parts]


def kind_of(data: str) -> Kind:
    """The kind of a name given to --data; nothing is checked."""
    return "dataset" if data.startswith(PREFIX) else "shards" if is_shards(data) else "folder"


def absolute_source(data: str) -> str:
    """The same name from any working directory; addresses and names on the hub stay what they are."""
    if data.startswith(PREFIX):
        return str(DatasetName.parse(data).absolute())
    return data if is_shards(data) and not is_local(data) else str(Path(data).absolute())


def open_source(
    data: Sequence[str], *, weights: Sequence[float] | None = None, files: ShardFiles, window: int, most_pixels: int = MOST_PIXELS
) -> ImageSource:
    """The images of all names together: folders or files, tar shards (patterns, addresses, folders of them), ``hf:`` names.

    ``weights`` are each name's share of the samples; without them images are drawn equally often. ``window`` shards are shuffled
    together; an image of more than ``most_pixels`` is unreadable. Raises SparseFormersError for a name that holds no images.
    """
    if weights is not None:
        sources = [_opened([each], files, window, most_pixels) for each in data]
        return MixedSource([source for (source,) in sources], weights)
    opened = _opened(data, files, window, most_pixels)
    return opened[0] if len(opened) == 1 else MixedSource(opened)


def _opened(data: Sequence[str], files: ShardFiles, window: int, most_pixels: int) -> list[ImageSource]:
    """All images of folders as one source, all shards as another, and each dataset."""
    sources: list[ImageSource] = []
    folders = [Path(each) for each in data if kind_of(each) == "folder"]
    found = find(folders)
    if folders and not (found.images or found.shards):
        raise no_images(folders, found)
    if found.images:
        sources.append(FolderSource(found.images, most_pixels=most_pixels, found=found))
    named = [shard for each in data if kind_of(each) == "shards" for shard in find_shards(each)]
    if shards := dict.fromkeys([*(str(path.absolute()) for path in found.shards), *named]):
        beside = None if found.images else found  # else the images tell it
        of_shards = ShardSource(list(shards), files, window=window, most_pixels=most_pixels, found=beside)
        if named or len(of_shards) or not sources:  # beside images an archive may be of anything
            sources.append(of_shards)
    datasets = dict.fromkeys(each for each in data if kind_of(each) == "dataset")
    sources += [HuggingFaceSource(each, most_pixels=most_pixels) for each in datasets]
    for source in sources:
        if not len(source):
            told = "; ".join(f"{name}: {reason}" for name, reason in source.faults()[:3])
            problem = f"There are no images in {shorten(map(repr, data), limit=3)}" + (f" ({told})." if told else ".")
            raise DataError(problem, "Images in shards are members whose names end in .jpg, .png, .webp or the like.")
    return sources


def split_source(source: ImageSource, share: float, *, seed: int) -> tuple[ImageSource, ImageSource]:
    """Parts images into those to learn from and a share in [0, 1) to hold out; raises ConfigError for another share.

    Each image is drawn by a hash of the seed and its key, so images that are added later do not move the others. The drawn
    share differs a little; above 0, it is at least two images (to measure between), as long as one is left to learn from.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"The held-out share must be in [0, 1), not {share}.", "Use 0.05, for example.")
    if share == 0 or len(source) < 2:
        return source.without([]), source.only([])
    drawn = (int.from_bytes(draw_of(source.key(place), seed), "big") for place in range(len(source)))
    draws = np.fromiter(drawn, dtype=np.uint64, count=len(source))
    count = min(max(2, np.count_nonzero(draws / 2.0**64 < share)), len(source) - 1)
    places = np.sort(np.argsort(draws, kind="stable")[:count]).tolist()
    return source.without(places), source.only(places)


def without_images_of(source: ImageSource, other: ImageSource) -> ImageSource:
    """The images of a source that the other does not have: files by their real path, shards as a whole, others by name."""
    taken = set(_identities(other))
    places = [place for place, identity in enumerate(_identities(source)) if identity in taken]
    return source.without(places) if places else source


def _identities(source: ImageSource) -> Iterator[str]:
    """What each image of a source is known by; those of a shard by the same."""
    if isinstance(source, MixedSource):
        for part in source.sources:
            yield from _identities(part)
    elif isinstance(source, FolderSource):
        yield from map(os.path.realpath, source.paths)
    elif isinstance(source, ShardSource):
        for shard in source.shards:
            yield from repeat(os.path.realpath(shard.address) if is_local(shard.address) else shard.address, shard.images)
    else:
        yield from map(source.name, range(len(source)))
