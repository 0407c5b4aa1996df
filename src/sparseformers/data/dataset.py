"""Views of images as tensors: each a function of (seed, epoch, index) alone, whichever worker or process makes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sparseformers.config import PreprocessingConfig
from sparseformers.data.images import UnreadableImageError
from sparseformers.data.loading import Loader
from sparseformers.data.order import FullShuffle, Interleaved, ViewKey, derived_seed
from sparseformers.data.sources import FolderSource, ImageSource
from sparseformers.data.transforms import CropView, evaluation_view
from sparseformers.errors import DataError

VIEW_BYTES = 3 * 224 * 224 * 4  # of a view that does not tell its size


class LoadedView(NamedTuple):
    """One view, or why there is none."""

    image: Tensor | None  # 3 x H x W: bytes, or floats in [0, 1]; None for an unreadable image
    index: int  # type: ignore[assignment]  # a tuple's own `index` is of no use here
    problem: str | None  # the reason why the image is unreadable
    stop: tuple[str, str] | None = None  # (problem, remedy) if its source cannot be reached any more


class Batch(NamedTuple):
    """The readable views of a batch, and what was unreadable."""

    images: Tensor  # b x 3 x H x W: bytes, or floats in [0, 1]; if b = 0, H and W are 0, too
    indices: Tensor  # b, int64: the place of each view in ImageViews
    unreadable: tuple[tuple[int, str], ...]  # (index, reason) of each view that is missing from the batch
    targets: Tensor | None = None  # b x D_out float32: the teacher's embeddings, if they were computed before
    attention_maps: Tensor | None = None  # b x h x w: the share of the teacher's attention in each patch, if it was, too
    tokens: Tensor | None = None  # b x D x h x w: the teacher's patch tokens, if they were, too


class ImageViews(Dataset[LoadedView]):
    """K = ``views_per_image`` views of each image; view k of image i has the index i * K + k.

    ``view`` makes a tensor 3 x H x W of an RGB image, with randomness from torch's global generator only. It is faster with
    ``at_least``, the pixels that the sides of a decoded JPEG need, and a method ``pixels``, which gives so many ``bytes``.
    """

    def __init__(
        self, images: ImageSource | Sequence[Path], view: Callable[[Image.Image], Tensor], *, seed: int, views_per_image: int = 1
    ) -> None:
        self.source = images if isinstance(images, ImageSource) else FolderSource(images)
        self.view, self.seed, self.views_per_image = view, seed, views_per_image
        self._at_least: int | None = getattr(view, "at_least", None)
        self._pixels: Callable[[Image.Image], Tensor] = getattr(view, "pixels", view)
        self.view_bytes: int = getattr(view, "bytes", VIEW_BYTES)

    def __len__(self) -> int:
        return len(self.source) * self.views_per_image

    def name(self, index: int) -> str:
        return self.source.name(index // self.views_per_image)

    def __getitem__(self, key: ViewKey) -> LoadedView:
        epoch, index = key
        try:
            image = self.source.read(index // self.views_per_image, at_least=self._at_least)
        except UnreadableImageError as error:
            return LoadedView(None, index, error.reason)
        except DataError as error:  # a loader with workers would make another kind of error of it
            return LoadedView(None, index, None, (error.problem, error.remedy))
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the accelerators too and those are not restored.
            torch.default_generator.manual_seed(derived_seed(self.seed, epoch, index))
            return LoadedView(self._pixels(image), index, None)


class _Sent(NamedTuple):
    """A :class:`Batch` as a reading process sends it: one tensor, since each of them costs a connection of its own."""

    images: Tensor
    indices: tuple[int, ...]
    unreadable: tuple[tuple[int, str], ...]
    stop: tuple[str, str] | None  # (problem, remedy): an error of a reading process would arrive as another one

    @classmethod
    def of(cls, views: list[LoadedView]) -> _Sent:
        good = [(view.image, view.index) for view in views if view.image is not None]
        images = torch.stack([image for image, _ in good]) if good else torch.empty(0, 3, 0, 0)
        unreadable = tuple((view.index, view.problem or "") for view in views if view.image is None)
        stop = next((view.stop for view in views if view.stop is not None), None)
        return cls(images, tuple(index for _, index in good), unreadable, stop)

    def received(self) -> Batch:
        if self.stop is not None:
            raise DataError(*self.stop)
        return Batch(self.images, torch.tensor(self.indices, dtype=torch.int64), self.unreadable)


def collate(views: list[LoadedView]) -> Batch:
    """Puts views together, without the unreadable ones."""
    return _Sent.of(views).received()


@dataclass(eq=False)
class SampleStream(Sampler[list[ViewKey]]):
    """The order of training, cut into batches, which may span two epochs.

    Processes take turns within every batch, so each gets as many batches; a short last one may be empty for some of them.
    """

    order: Interleaved | int  # a number of images stands for passes over them, each in a random order
    _: KW_ONLY
    batch_size: int  # of all processes together
    seed: int
    total: int | None  # samples of the whole run, from its beginning and not from ``start``; None for no end
    start: int = 0  # samples that the run has had before
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        self._samples = Interleaved((FullShuffle(self.order),), (1,)) if isinstance(self.order, int) else self.order
        length = self._samples.length
        if length < 1 or self.batch_size < 1 or self.start < 0 or not 0 <= self.process < self.processes:
            raise ValueError(
                f"no stream of {length} images in batches of {self.batch_size} for process {self.process} of {self.processes}"
            )

    @property
    def of_each(self) -> int:  # images of a batch that are for one process, at most
        return math.ceil(self.batch_size / self.processes)

    def __len__(self) -> int:
        if self.total is None:
            raise TypeError("a stream without a total has no length")
        return math.ceil(max(0, self.total - self.start) / self.batch_size)

    def __iter__(self) -> Iterator[list[ViewKey]]:
        left = None if self.total is None else max(0, self.total - self.start)
        keys = islice(self._samples.keys(self.seed, self.start), left)
        while batch := list(islice(keys, self.batch_size)):
            yield batch[self.process :: self.processes]


@dataclass(eq=False)
class _InOrder(Sampler[list[ViewKey]]):
    """Every view of the first epochs once, in order; no batch spans two epochs. Processes take whole batches in turn."""

    length: int
    batch_size: int
    epochs: int = 1
    process: int = 0
    processes: int = 1

    @property
    def of_each(self) -> int:
        return self.batch_size

    def __len__(self) -> int:
        return self.epochs * len(self._starts())

    def _starts(self) -> range:
        return range(self.process * self.batch_size, self.length, self.processes * self.batch_size)

    def __iter__(self) -> Iterator[list[ViewKey]]:
        for epoch in range(self.epochs):
            for start in self._starts():
                yield [ViewKey(epoch, index) for index in range(start, min(start + self.batch_size, self.length))]


def batch_loader(views: ImageViews, batches: SampleStream | _InOrder, *, workers: int) -> Loader[Batch]:
    """Loads batches of views by ``workers`` processes; 0 reads in this one."""
    size = views.view_bytes * min(len(views), batches.of_each)
    return Loader(views, workers=workers, batch_bytes=size, received=_Sent.received, collate=_Sent.of, batch_sampler=batches)


def views_in_order(views: ImageViews, *, epochs: int, batch_size: int, workers: int) -> Loader[Batch]:
    """Loads every view of the first epochs once, in order; the last batch of each epoch may be short."""
    return batch_loader(views, _InOrder(len(views), batch_size, epochs), workers=workers)


def evaluation_batches(
    images: ImageSource | Sequence[Path], preprocessing: PreprocessingConfig, *, batch_size: int, workers: int, **turn: int
) -> Loader[Batch]:
    """Loads the teacher's own view of each image, in order; several processes (``process`` of ``processes``) take turns."""
    views = ImageViews(images, evaluation_view(preprocessing), seed=0)
    return batch_loader(views, _InOrder(len(views), batch_size, **turn), workers=workers)


def fixed_views(
    images: ImageSource | Sequence[Path],
    *,
    size: tuple[int, int],
    views_per_image: int,
    seed: int,
    scale: tuple[float, float] = (0.1, 0.6),
    batch_size: int = 32,
    workers: int = 0,
    **turn: int,
) -> Loader[Batch]:
    """Loads K random crops of each image, the same ones every time, to evaluate with few images.

    ``scale`` is the least and greatest share of the image's area that a crop keeps, ``size`` its height and width in pixels.
    Several processes (``process`` of ``processes``) take turns, batch by batch.
    """
    views = ImageViews(images, CropView(size, scale), seed=seed, views_per_image=views_per_image)
    return batch_loader(views, _InOrder(len(views), batch_size, **turn), workers=workers)
