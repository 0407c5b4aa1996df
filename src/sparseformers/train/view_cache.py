"""Fixed views of the training images with the teacher's embeddings of them, so that many runs share one teacher's work.

A cache is a folder, named by a digest of everything that its content depends on; it is made once, by one process, whole or not
at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from rich import filesize
from rich.console import Console

from sparseformers.data import Batch, SampleStream, ViewKey, images_on, views_in_order
from sparseformers.data.images import MOST_PIXELS
from sparseformers.data.sources import ImageSource
from sparseformers.data.transforms import SMALLEST_CROPS
from sparseformers.errors import DataError, RunError
from sparseformers.files import replacing_folder, write_text
from sparseformers.modes import autocast_dtype
from sparseformers.progress import ImageProgress, say
from sparseformers.settings import to_dict
from sparseformers.teachers import Teacher
from sparseformers.train.objective import teacher_targets
from sparseformers.train.settings import BootstrapConfig
from sparseformers.work_folder import WorkFolder

if TYPE_CHECKING:
    from sparseformers.train.setup import Parts

FORMAT = 1  # of the cache's files; a change to what they hold raises it
LIBRARIES = ("pillow", "torch", "torchvision")  # that views are made with: another version may draw or resize otherwise
IMAGES = "images.npy"  # K x images x 3 x H x W bytes; zeros for a view that is missing
EMBEDDINGS = "embeddings.npy"  # K x images x D_out float32; zeros for a view that is missing
MAPS = "attention_maps.npy"  # K x images x h x w float16, where the student has a map to learn
TOKENS = "patch_tokens.npy"  # K x images x D x h x w float16, where the student learns maps of features
UNREADABLE = "unreadable.json"  # a list of [epoch, index, reason], one for each view that is missing
KEY = "key.json"  # the content of the cache's key
SECONDS_BETWEEN_ATTEMPTS = 0.5  # while the other processes wait for the main one to finish the cache
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
        unreadable = {(int(epoch), int(index)): str(reason) for epoch, index, reason in rows}
        arrays = {name: _mapped(folder / name, *form) for name, form in key.arrays.items()}
        return ViewCache(folder, arrays[IMAGES], arrays[EMBEDDINGS], unreadable, arrays.get(MAPS), arrays.get(TOKENS))
    except (OSError, ValueError, TypeError) as error:
        raise DamagedCacheError(f"{type(error).__name__}: {error}") from error


def _mapped(path: Path, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    array = np.lib.format.open_memmap(path, mode="r")
    if array.dtype != kind or array.shape != shape or path.stat().st_size != array.offset + array.nbytes:
        raise DamagedCacheError(f"{path.name} holds {array.dtype} {array.shape}, not {kind} {shape}")
    return array


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
        problem = f"The cache of views needs {filesize.decimal(key.bytes)}, but '{root}' has {filesize.decimal(free)} left."
        raise RunError(problem, "Free some space, lower --cached-views, or name a folder on another disk with --cache-teacher.")


def _whole(folder: Path, key: CacheKey) -> ViewCache | None:
    with contextlib.suppress(DamagedCacheError):
        return open_cache(folder, key)
    return None


def _found_or_made(parts: Parts, key: CacheKey, folder: Path, console: Console) -> ViewCache:
    try:
        if (found := open_cache(folder, key)) is not None:
            LOGGER.info("uses the cache of views '%s'", folder)
            return found
    except DamagedCacheError as damage:
        LOGGER.warning("the cache of views '%s' is damaged (%s) and is made again", folder, damage)
        with ViewCacheFolder(folder).writing():
            _remove(folder, key)
    # It is written aside and renamed; another process may do the same, and the first one counts.
    require_room(parts)
    size = f"{key.epochs * key.images:,} views ({filesize.decimal(key.bytes)})"
    say(console, f"caching {size} in '{folder}'")
    LOGGER.info("makes the cache of views '%s': %s", folder, size)
    start, cache = time.perf_counter(), ViewCacheFolder(folder)
    with cache.writing(room_only=True), replacing_folder(folder, keep_existing=True) as temporary:
        _write(temporary, cache, key, _rows(parts, key, console))
    LOGGER.info("made the cache of views in %.0f seconds", time.perf_counter() - start)
    if (made := _whole(folder, key)) is None:
        raise RunError(f"The cache of views '{folder}' was changed while it was made.", "Start again.")
    return made


def _rows(parts: Parts, key: CacheKey, console: Console) -> Iterator[_Rows]:
    """Makes all views in order, batch by batch: rows of the key's arrays, and (epoch, index, reason) of those that are zeros."""
    batch_size, done = parts.settings.optimisation.batch_size, 0
    loader = views_in_order(parts.training_views(), epochs=key.epochs, batch_size=batch_size, workers=parts.workers)
    for batch in answered(parts, loader, "caching views", key.epochs * key.images, console):
        epoch, first = divmod(done, key.images)
        count = len(batch.images) + len(batch.unreadable)
        arrays = {name: np.zeros((count, *shape[2:]), kind) for name, (kind, shape) in key.arrays.items()}
        told = {IMAGES: batch.images, EMBEDDINGS: batch.targets, MAPS: batch.attention_maps, TOKENS: batch.tokens}
        for name, values in told.items():
            if name in arrays and values is not None and len(batch.images):
                arrays[name][(batch.indices - first).numpy()] = values.float().cpu().numpy()
        yield list(arrays.values()), [(epoch, index, reason) for index, reason in batch.unreadable]
        done += count


def answered(parts: Parts, batches: Iterable[Batch], title: str, total: int, console: Console) -> Generator[Batch]:
    """Batches of ``total`` views with the teacher's answers, computed where they are not known; their progress has a title."""
    teacher, done = parts.telling_teacher(), 0
    with ImageProgress(console, title, size=total, total=total, images=0, reached=0) as bar:
        for batch in batches:
            if batch.targets is not None or not len(batch.images):
                yield batch
            else:
                told = teacher_targets(teacher, images_on(parts.device, batch.images), autocast_dtype(parts.precision))
                yield batch._replace(targets=told.embedding.float(), attention_maps=told.attention_map, tokens=told.tokens)
            done += len(batch.images) + len(batch.unreadable)
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
