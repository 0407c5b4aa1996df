"""Making a cache of views: once, by one process, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from rich.console import Console

from sparseformers.data import images_on, views_in_order
from sparseformers.errors import DataError, RunError
from sparseformers.files import replacing_folder, write_text
from sparseformers.modes import autocast_dtype
from sparseformers.progress import ImageProgress
from sparseformers.train.objective import teacher_embedding
from sparseformers.train.setup import Parts
from sparseformers.train.view_cache import (
    EMBEDDINGS,
    IMAGES,
    KEY,
    LOGGER,
    UNREADABLE,
    CacheKey,
    DamagedCacheError,
    ViewCache,
    open_cache,
)
from sparseformers.work_folder import WorkFolder

SECONDS_BETWEEN_LOOKS = 0.5
"""How often the other processes look whether the main one has finished the cache."""


@dataclass(frozen=True)
class ViewCacheFolder(WorkFolder):
    """The folder of a cache: it needs no lock, as it is renamed whole, and the first of several that make it counts."""

    KIND: ClassVar[str] = "cache of views"
    MANIFEST: ClassVar[str] = KEY
    OPTION: ClassVar[str] = "--cache-teacher"

    @property
    def title(self) -> str:
        return f"the cache of views '{self.path}'"

    @property
    def going_on(self) -> str:
        return f"start again, or name another folder with {self.OPTION}."


class _Rows(NamedTuple):
    """What a batch adds to the cache."""

    images: np.ndarray
    """b x 3 x H x W uint8."""
    embeddings: np.ndarray
    """b x D_out float32."""
    unreadable: list[tuple[int, int, str]]
    """(epoch, index, reason) of those rows that are zeros."""


def prepare_cache(parts: Parts, accelerator: Accelerator, console: Console) -> ViewCache | None:
    """The cache of the run's views, made by the main process unless it is there already; None if the run has none.

    Raises:
        RunError: if it cannot be written.
        DataError: if the processes do not find the same images.
    """
    key, folder = parts.cache_key, parts.cache_folder
    if key is None or folder is None:
        return None
    if len(set(gather_object([key.digest]))) > 1:
        raise DataError("The training images change while the processes start.", "Start again when they are all in place.")
    cache = _found_or_made(parts, key, folder, console) if accelerator.is_main_process else _awaited(folder, key)
    accelerator.wait_for_everyone()
    return cache


def require_room(parts: Parts) -> None:
    """Raises RunError if the run's cache is still to be made and its folder cannot be written to, or holds too little."""
    key, folder = parts.cache_key, parts.cache_folder
    if key is None or folder is None or is_made(parts):
        return
    root = folder.parent
    with ViewCacheFolder(folder).writing():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root):
            free = shutil.disk_usage(root).free
    if free < key.bytes:
        raise RunError(
            f"The cache of views needs {key.bytes / 2**30:.1f} GiB, but '{root}' has {free / 2**30:.1f} GiB left.",
            "Free some space, lower --cached-views, or name a folder on another disk with --cache-teacher.",
        )


def is_made(parts: Parts) -> bool:
    """Whether the run's cache is there and whole."""
    try:
        return parts.cache_key is not None and open_cache(parts.cache_folder or Path(), parts.cache_key) is not None
    except DamagedCacheError:
        return False


def _found_or_made(parts: Parts, key: CacheKey, folder: Path, console: Console) -> ViewCache:
    try:
        found = open_cache(folder, key)
    except DamagedCacheError as damage:
        LOGGER.warning("the cache of views '%s' is damaged (%s) and is made again", folder, damage)
        with ViewCacheFolder(folder).writing():
            _remove(folder, key)
        found = None
    if found is not None:
        LOGGER.info("uses the cache of views '%s'", folder)
        return found
    _make(parts, key, folder, console)
    try:
        made = open_cache(folder, key)
    except DamagedCacheError:
        made = None
    if made is None:
        raise RunError(f"The cache of views '{folder}' was changed while it was made.", "Start again.")
    return made


def _awaited(folder: Path, key: CacheKey) -> ViewCache:
    """The cache when the main process has made it: no collective operation waits as long as that may take."""
    while True:
        with contextlib.suppress(DamagedCacheError):  # the main process replaces it
            if (cache := open_cache(folder, key)) is not None:
                return cache
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _make(parts: Parts, key: CacheKey, folder: Path, console: Console) -> None:
    """Writes the cache aside and renames it; another process may do the same, and the first one counts."""
    require_room(parts)
    size = f"{key.views:,} views ({key.bytes / 2**30:.1f} GiB)"
    console.print(f"[dim]caching[/dim] {size} in '{folder}'", highlight=False, soft_wrap=True)
    LOGGER.info("makes the cache of views '%s': %s", folder, size)
    start = time.perf_counter()
    cache = ViewCacheFolder(folder)
    with cache.writing(room_only=True), replacing_folder(folder, keep_existing=True) as temporary:
        _write(temporary, cache, key, _rows(parts, key, console))
    LOGGER.info("made the cache of views in %.0f seconds", time.perf_counter() - start)


def _rows(parts: Parts, key: CacheKey, console: Console) -> Iterator[_Rows]:
    """All views in order, batch by batch, with the teacher's embeddings of them; draws the bar."""
    dtype, done = autocast_dtype(parts.precision), 0
    batch_size = parts.settings.optimisation.batch_size
    loader = views_in_order(parts.training_views(), epochs=key.epochs, batch_size=batch_size, workers=parts.workers)
    with ImageProgress(console, "caching views", size=key.views, total=key.views, images=0, reached=0) as bar:
        for batch in loader:
            epoch, first = divmod(done, key.images)
            count = len(batch.images) + len(batch.unreadable)
            images = torch.zeros(count, 3, *key.size, dtype=torch.uint8)
            embeddings = torch.zeros(count, key.width)
            if len(batch.images):
                rows = batch.indices - first
                images[rows] = batch.images
                seen = images_on(parts.device, batch.images)
                embeddings[rows] = teacher_embedding(parts.teacher, seen, dtype).float().cpu()
            yield _Rows(images.numpy(), embeddings.numpy(), [(epoch, index, reason) for index, reason in batch.unreadable])
            done += count
            bar.step(len(batch.images), len(batch.unreadable), done)


def _write(temporary: Path, cache: ViewCacheFolder, key: CacheKey, computed: Iterator[_Rows]) -> None:
    """Writes all files of a cache.

    Row by row and not through a memory map, by which a disk that fills up kills the process.
    """
    unreadable: list[tuple[int, int, str]] = []
    with (temporary / IMAGES).open("wb") as images, (temporary / EMBEDDINGS).open("wb") as embeddings:
        with cache.writing():
            _begin(images, np.dtype(np.uint8), key.images_shape)
            _begin(embeddings, np.dtype(np.float32), key.embeddings_shape)
        for rows in computed:
            unreadable += rows.unreadable
            with cache.writing():
                for file, values in ((images, rows.images), (embeddings, rows.embeddings)):
                    file.write(values.data)
                    file.flush()  # closing must have nothing left to fail with
        with cache.writing():
            os.fsync(images.fileno())
            os.fsync(embeddings.fileno())
    with cache.writing():
        write_text(temporary / UNREADABLE, json.dumps(unreadable) + "\n")
        write_text(temporary / KEY, json.dumps(key.content, indent=1) + "\n")


def _begin(file: BinaryIO, kind: np.dtype, shape: tuple[int, ...]) -> None:
    """The header of an .npy file."""
    described = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)


def _remove(folder: Path, key: CacheKey) -> None:
    """Removes a damaged cache; if another process has replaced it since, that one stays."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent) as aside:
        moved = Path(aside, folder.name)
        try:
            folder.rename(moved)
        except FileNotFoundError:
            return
        with contextlib.suppress(DamagedCacheError, OSError):
            if open_cache(moved, key) is not None:
                moved.rename(folder)
