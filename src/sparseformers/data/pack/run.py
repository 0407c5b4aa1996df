"""Packing a folder of images into shards, or going on with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sparseformers.data.dataset import default_workers
from sparseformers.data.pack.config import PackConfig
from sparseformers.data.pack.folder import PackFolder, Packing
from sparseformers.data.pack.images import ImageList, PackedImage, prepared
from sparseformers.data.pack.shard import OpenShard
from sparseformers.data.shard_index import SIDECAR, write_index
from sparseformers.errors import DataError
from sparseformers.files import replacing

SECONDS_BETWEEN_LINES = 30.0
"""How often a line is written where there is no terminal."""


@dataclass(frozen=True)
class PackSummary:
    """What came of a packing."""

    out: Path
    """The folder with the shards."""
    shards: int
    """How many there are."""
    images: int
    """In all of them."""
    bytes: int
    """Of all of them."""
    skipped: int
    """Images that were left out, listed in ``skipped_images.txt``."""
    went_on_from: int
    """Images that an earlier process had done."""
    seconds: float
    """Time that this one took."""
    images_per_second: float
    """In this time."""


def pack(config: PackConfig, *, overwrite: bool = False, console: Console | None = None) -> PackSummary:
    """Packs a folder of images into tar shards; goes on with a packing that was stopped, to the same bytes.

    Args:
        config: what to pack how.
        overwrite: whether to replace shards that are there.
        console: for progress; quiet by default.

    Raises:
        SparseFormersError: one of its kinds, with what to do.
    """
    console = console or Console(quiet=True)
    start = time.perf_counter()
    images, folder = ImageList(config), PackFolder(config.out)
    with folder.held():
        content = {**config.what(), "the images": images.digest()}
        packing = folder.begin(content, overwrite=overwrite)
        before = packing.done
        bar = _Bar(console, len(images), before)
        with bar.progress:
            for after in _packed(images, config, folder, packing, bar):
                _require_images(after)
                folder.keep(after)
                packing = after
        folder.finish(packing)
    seconds = time.perf_counter() - start
    return PackSummary(
        out=config.out,
        shards=len(packing.shards),
        images=packing.images,
        bytes=packing.bytes,
        skipped=len(packing.skipped),
        went_on_from=before,
        seconds=seconds,
        images_per_second=(packing.done - before) / max(seconds, 1e-9),
    )


def _require_images(packing: Packing) -> None:
    if not packing.shards:
        told = "; ".join(f"{path}: {reason}" for path, reason in packing.skipped[:3])
        raise DataError(f"None of the {packing.done:,} images could be read ({told}).", "Give images that can be decoded.")


def _packed(images: ImageList, config: PackConfig, folder: PackFolder, packing: Packing, bar: _Bar) -> Iterator[Packing]:
    """The packing after each shard that is made."""
    threads = default_workers() if config.workers is None else config.workers
    names = images.names()
    ready = prepared(names[packing.done :], images.paths[packing.done :], config, threads=threads)
    skipped = list(packing.skipped)
    good = _good(ready, packing.done, skipped, bar)
    upcoming = next(good, None)
    while upcoming is not None:
        path = folder.shard(len(packing.shards))
        with replacing(path) as unfinished:
            with closing(OpenShard(unfinished, config.shard_bytes)) as shard:
                while upcoming is not None and shard.has_room(upcoming[1]):
                    shard.add(upcoming[1])
                    upcoming = next(good, None)
                finished, index = shard.finish(path.name)
            write_index(Path(f"{path}{SIDECAR}"), index)
        # All before the one that had no room are in a shard or left out.
        done = len(images) if upcoming is None else upcoming[0]
        packing = replace(packing, shards=(*packing.shards, finished), done=done, skipped=tuple(skipped))
        yield packing
    if packing.done < len(images):
        yield replace(packing, done=len(images), skipped=tuple(skipped))


def _good(
    ready: Iterator[PackedImage], first: int, skipped: list[tuple[str, str]], bar: _Bar
) -> Iterator[tuple[int, PackedImage]]:
    """(place, image) of those that can be packed; the others are added to ``skipped``."""
    for place, image in enumerate(ready, first):
        if image.problem is None:
            yield place, image
        else:
            skipped.append((str(image.path), image.problem))
        bar.step(skipped=len(skipped))


class _Bar:
    """How far a packing is: a bar where there is a terminal, else a line now and then."""

    def __init__(self, console: Console, total: int, before: int) -> None:
        self.console, self.total, self.before, self.done = console, total, before, before
        self._start = self._line = time.perf_counter()
        columns = (TextColumn("packing"), BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"))
        more = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self.progress = Progress(*columns, *more, console=console, disable=not console.is_terminal)
        self._task = self.progress.add_task("", total=total, completed=before, figures="")

    def step(self, *, skipped: int) -> None:
        """One more image, and how many were left out so far."""
        self.done += 1
        now = time.perf_counter()
        rate = (self.done - self.before) / max(now - self._start, 1e-9)
        figures = f"{rate:.1f} img/s" + (f"  {skipped:,} skipped" if skipped else "")
        self.progress.update(self._task, completed=self.done, figures=figures)
        if not self.console.is_terminal and now - self._line >= SECONDS_BETWEEN_LINES:
            self._line = now
            left = f"about {(self.total - self.done) / rate:,.0f} s left"
            self.console.print(f"{self.done:,} of {self.total:,} images  {figures}  {left}", highlight=False, soft_wrap=True)
