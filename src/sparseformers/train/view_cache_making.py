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
from typing import ClassVar

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from rich.console import Console

from sparseformers.data import images_on, views_in_order
from sparseformers.errors import DataError, RunError
from sparseformers.files import replacing_folder, write_text
from sparseformers.modes import autocast_dtype
from sparseformers.progress import ImageProgress, say
from sparseformers.train.objective import teacher_targets
from sparseformers.train.setup import Parts
from sparseformers.train.view_cache import (
    EMBEDDINGS,
    IMAGES,
    KEY,
    LOGGER,
    MAPS,
    TOKENS,
    UNREADABLE,
    CacheKey,
    DamagedCacheError,
    ViewCache,
    open_cache,
)
from sparseformers.work_folder import WorkFolder

SECONDS_BETWEEN_ATTEMPTS = 0.5  # while the other processes wait for the main one to finish the cache


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


_Rows = tuple[list[np.ndarray], list[tuple[int, int, str]]]


def prepare_cache(parts: Parts, accelerator: Accelerator, console: Console) -> ViewCache | None:
    """The cache of the run's views, if it has one, made by the main process unless it is there; raises RunError or DataError."""
    key, folder = parts.cache_key, parts.cache_folder
    if key is None or folder is None:
        return None
    if len(set(gather_object([key.digest]))) > 1:
        raise DataError("The training images change while the processes start.", "Start again when they are all in place.")
    cache = _found_or_made(parts, key, folder, console) if accelerator.is_main_process else _whole(folder, key)
    while cache is None:  # until the main process has made it: no collective operation waits as long as that may take
        time.sleep(SECONDS_BETWEEN_ATTEMPTS)
        cache = _whole(folder, key)
    accelerator.wait_for_everyone()
    return cache


def require_room(parts: Parts) -> None:
    """Raises RunError if the run's cache is still to be made and its folder cannot be written to, or holds too little."""
    key, folder = parts.cache_key, parts.cache_folder
    if key is None or folder is None or _whole(folder, key) is not None:
        return
    root = folder.parent
    with ViewCacheFolder(folder).writing():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root):
            free = shutil.disk_usage(root).free
    if free < key.bytes:
        problem = f"The cache of views needs {key.bytes / 2**30:.1f} GiB, but '{root}' has {free / 2**30:.1f} GiB left."
        raise RunError(problem, "Free some space, lower --cached-views, or name a folder on another disk with --cache-teacher.")


def _whole(folder: Path, key: CacheKey) -> ViewCache | None:
    """The cache, if it is there and not damaged."""
    with contextlib.suppress(DamagedCacheError):
        return open_cache(folder, key)
    return None


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
    if (made := _whole(folder, key)) is None:
        raise RunError(f"The cache of views '{folder}' was changed while it was made.", "Start again.")
    return made


def _make(parts: Parts, key: CacheKey, folder: Path, console: Console) -> None:
    """Writes the cache aside and renames it; another process may do the same, and the first one counts."""
    require_room(parts)
    size = f"{key.views:,} views ({key.bytes / 2**30:.1f} GiB)"
    say(console, f"caching {size} in '{folder}'")
    LOGGER.info("makes the cache of views '%s': %s", folder, size)
    start = time.perf_counter()
    cache = ViewCacheFolder(folder)
    with cache.writing(room_only=True), replacing_folder(folder, keep_existing=True) as temporary:
        _write(temporary, cache, key, _rows(parts, key, console))
    LOGGER.info("made the cache of views in %.0f seconds", time.perf_counter() - start)


def _rows(parts: Parts, key: CacheKey, console: Console) -> Iterator[_Rows]:
    """Makes all views in order, batch by batch: rows of the key's arrays, and (epoch, index, reason) of those that are zeros."""
    dtype, done = autocast_dtype(parts.precision), 0
    batch_size = parts.settings.optimisation.batch_size
    teacher = parts.telling_teacher()
    loader = views_in_order(parts.training_views(), epochs=key.epochs, batch_size=batch_size, workers=parts.workers)
    with ImageProgress(console, "caching views", size=key.views, total=key.views, images=0, reached=0) as bar:
        for batch in loader:
            epoch, first = divmod(done, key.images)
            count = len(batch.images) + len(batch.unreadable)
            arrays = {name: np.zeros((count, *shape[2:]), kind) for name, (kind, shape) in key.arrays.items()}
            if len(batch.images):
                rows = (batch.indices - first).numpy()
                arrays[IMAGES][rows] = batch.images.numpy()
                answer = teacher_targets(teacher, images_on(parts.device, batch.images), dtype)
                arrays[EMBEDDINGS][rows] = answer.embedding.float().cpu().numpy()
                for name, told in ((MAPS, answer.attention_map), (TOKENS, answer.tokens)):
                    if name in arrays and told is not None:
                        arrays[name][rows] = told.half().cpu().numpy()
            yield list(arrays.values()), [(epoch, index, reason) for index, reason in batch.unreadable]
            done += count
            bar.step(len(batch.images), len(batch.unreadable), done)


def _write(temporary: Path, cache: ViewCacheFolder, key: CacheKey, computed: Iterator[_Rows]) -> None:
    """Writes all files of a cache; not through a memory map, by which a disk that fills up kills the process."""
    unreadable: list[tuple[int, int, str]] = []
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context((temporary / name).open("wb")) for name in key.arrays]
        with cache.writing():
            for file, (kind, shape) in zip(files, key.arrays.values(), strict=True):
                header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
        for arrays, missing in computed:
            unreadable += missing
            with cache.writing():
                for file, values in zip(files, arrays, strict=True):
                    file.write(values.data)
                    file.flush()  # closing must have nothing left to fail with
        with cache.writing():
            for file in files:
                os.fsync(file.fileno())
    with cache.writing():
        write_text(temporary / UNREADABLE, json.dumps(unreadable) + "\n")
        write_text(temporary / KEY, json.dumps(key.content, indent=1) + "\n")


def _remove(folder: Path, key: CacheKey) -> None:
    """Removes a damaged cache; if another process has replaced it since, that one stays."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent) as aside:
        moved = Path(aside, folder.name)
        try:
            folder.rename(moved)
        except FileNotFoundError:
            return
        if _whole(moved, key) is not None:
            with contextlib.suppress(OSError):
                moved.rename(folder)
