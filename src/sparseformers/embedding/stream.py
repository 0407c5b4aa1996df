"""Batches of decoded images from folders and shards, in one order whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from sparseformers.data import LoadedView, Loader, UnreadableImageError, collate, read_image
from sparseformers.data.dataset import VIEW_BYTES
from sparseformers.data.images import decode
from sparseformers.data.shards import ShardMember, is_local, shard_members
from sparseformers.embedding.inputs import Inputs, InputSource, Listing, Position, text_name
from sparseformers.errors import DataError


class InputBatch(NamedTuple):
    """Consecutive images of one source."""

    number: int  # its place in the stream
    images: Tensor  # b x 3 x H x W in [0, 1]: those that could be read
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]  # (file name, reason) of those that could not
    end: Position
    reached: int  # bytes of the input up to there, about
    stop: tuple[str, str] | None = None  # (problem, remedy) where the stream cannot go on

    def received(self) -> InputBatch:
        """The batch itself; raises DataError where the process that read it could only report that."""
        if self.stop is not None:
            raise DataError(*self.stop)
        return self


class InputStream(IterableDataset[InputBatch]):
    """The batches of ``inputs`` from ``start`` on, where an earlier stream with the same batch size ended a batch.

    Worker w of W makes every W-th batch, beginning with the batch w, and a loader asks them in turn. In a shard each worker
    looks at all headers for that, and reads its own images only. The last batch of a source may be short.
    """

    def __init__(self, inputs: Inputs, view: Callable[[Image.Image], Tensor], batch_size: int, start: Position) -> None:
        self.inputs = inputs
        self.view = view
        self.batch_size = batch_size
        self.start = start

    def __iter__(self) -> Iterator[InputBatch]:
        info = get_worker_info()
        turn, turns = (0, 1) if info is None else (info.id, info.num_workers)
        number = 0
        try:
            for place in range(self.start.source, len(self.inputs.sources)):
                source = self.inputs.sources[place]
                start = self.start.item if place == self.start.source else 0
                batches = self._of_files if source.kind == "files" else self._of_shard
                for batch in batches(source, place, start, lambda ahead: (ahead % turns) == turn, number):
                    if batch is not None:
                        yield batch
                    number += 1
        except DataError as error:  # a loader would make another kind of error of it
            if number % turns == turn:
                empty = torch.empty(0, 3, 0, 0)
                yield InputBatch(number, empty, (), (), self.start, 0, (error.problem, error.remedy))

    def _of_files(
        self, source: InputSource, place: int, start: int, mine: Callable[[int], bool], number: int
    ) -> Iterator[InputBatch | None]:
        """The batches of listed files; None in the place of another worker's."""
        listing = Listing(Path(source.location))
        for places in listing.batches(start, self.batch_size):
            if mine(number):
                images = listing.images(places)
                items = [(self._view(partial(read_image, image.path)), image.name) for image in images]
                yield _batch(number, items, Position(place, places.stop), source.begin + images[-1].bytes_before)
            else:
                yield None
            number += 1

    def _of_shard(
        self, source: InputSource, place: int, start: int, mine: Callable[[int], bool], number: int
    ) -> Iterator[InputBatch | None]:
        """The batches of a shard's images; None in the place of another worker's."""
        items: list[tuple[LoadedView, str]] = []
        count = end = start
        for item, member in enumerate(shard_members(source.location)):
            if item < start:
                continue
            if mine(number):
                items.append((self._member(member), text_name(f"{source.name}/{member.name}".rstrip("/"))))
            end = item + 1
            if end - count == self.batch_size:
                reached = source.begin + min(member.start, source.size)
                yield _batch(number, items, Position(place, end), reached) if mine(number) else None
                items, count, number = [], end, number + 1
        if end > count:
            yield _batch(number, items, Position(place, end), source.begin + source.size) if mine(number) else None

    def _view(self, read: Callable[[], Image.Image]) -> LoadedView:
        try:
            return LoadedView(self.view(read()), 0, None)
        except UnreadableImageError as error:
            return LoadedView(None, 0, error.reason)

    def _member(self, member: ShardMember) -> LoadedView:
        if member.problem is not None:
            return LoadedView(None, 0, member.problem)
        return self._view(lambda: decode(BytesIO(member.read()), Path(member.name)))


def _batch(number: int, items: Sequence[tuple[LoadedView, str]], end: Position, reached: int) -> InputBatch:
    batch = collate([view._replace(index=place) for place, (view, _) in enumerate(items)])
    return InputBatch(
        number,
        batch.images,
        tuple(items[place][1] for place in batch.indices.tolist()),
        tuple((items[place][1], reason) for place, reason in batch.unreadable),
        end,
        reached,
    )


def input_batches(stream: InputStream, *, workers: int) -> Iterator[InputBatch]:
    """The batches of a stream in order, by ``workers`` processes (one at most for addresses); DataError if a shard is gone."""
    if not all(source.kind == "files" or is_local(source.location) for source in stream.inputs.sources):
        workers = min(workers, 1)
    size = getattr(stream.view, "bytes", VIEW_BYTES // 4)
    loader = Loader(
        stream,
        workers=workers,
        batch_bytes=4 * size * stream.batch_size,
        received=InputBatch.received,
        collate=_as_it_is,
        batch_size=None,  # the stream makes batches itself
    )
    for number, batch in enumerate(loader):
        if batch.number != number:
            raise AssertionError(f"batch {batch.number} came in the place of batch {number}")
        yield batch


def _as_it_is(batch: InputBatch) -> InputBatch:
    return batch
