"""Packs a folder of images into shards, or goes on with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro
from rich.console import Console

from sparseformers.data.images import MOST_PIXELS, PILLOWS_MOST_PIXELS, SkippedImages
from sparseformers.data.pack.shard import ImageList, OpenShard, PackedImage, PackedShard, prepared
from sparseformers.data.shard_files import SIDECAR, write_index
from sparseformers.errors import ConfigError, DataError, RunError
from sparseformers.files import replacing, write_json
from sparseformers.progress import ImageProgress, say
from sparseformers.settings import AtLeast, Between, check_bounds, from_dict, to_dict
from sparseformers.work_folder import InFolder, WorkFolder, differences

FORMAT = 1  # of the JSON files; a change to what they hold raises it
UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SMALLEST_SHARD = 10_000  # bytes; a smaller one would be more headers than images


@dataclass(frozen=True)
class PackConfig:
    """The images to put into shards, and settings for it."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="dir", metavar="DIR")]
    """A folder of images, searched recursively; their paths from there on become their names in the shards."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The folder to make: 000000.tar and so on, beside each an index, manifest.json, and skipped_images.txt."""
    shard_size: str = "256MB"
    """Bytes of a shard, such as 256MB or 1GiB; the last one is smaller, and one with a single large image larger."""
    resize: Annotated[int | None, AtLeast(1)] = None
    """Pixels to shrink the shorter side to; smaller images stay what they are. By default all files are taken as they are."""
    quality: Annotated[int, Between(1, 95, example=92)] = 92
    """JPEG quality of images that are shrunk, in [1, 95]."""
    seed: int = 0
    """Seed of the order: images are shuffled, so that a shard has images from everywhere."""
    keep_order: bool = False
    """Take images in the order of their names instead."""
    max_pixels: Annotated[int, Between(1, PILLOWS_MOST_PIXELS, example=MOST_PIXELS)] = MOST_PIXELS
    """Images of more pixels are skipped."""
    workers: Annotated[int | None, AtLeast(1)] = None
    """Threads that read and shrink images; chosen from the processor's cores by default."""

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.shard_bytes < SMALLEST_SHARD:
            raise ConfigError(f"--shard-size must be at least {SMALLEST_SHARD} bytes, not {self.shard_size}.", "Use 256MB.")

    @property
    def shard_bytes(self) -> int:
        """``shard_size`` in bytes; raises ConfigError if it cannot be understood."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", self.shard_size.strip().lower())
        if match is None or match[2] not in UNITS:
            raise ConfigError(f"The size '{self.shard_size}' cannot be understood.", "Write 256MB, 1GiB or a number of bytes.")
        return int(float(match[1]) * UNITS[match[2]])

    def content(self) -> dict[str, Any]:
        """The settings that the shards depend on, by their flags."""
        return {
            "format": FORMAT,
            "--shard-size": self.shard_bytes,
            "--resize": self.resize,
            "--quality": None if self.resize is None else self.quality,
            "--seed": None if self.keep_order else self.seed,
            "--keep-order": self.keep_order,
            "--max-pixels": self.max_pixels,
        }


@dataclass(frozen=True)
class PackSummary:
    """The outcome of a packing."""

    out: Path
    shards: int
    images: int
    bytes: int
    skipped: int  # unreadable images, listed in ``skipped_images.txt``
    went_on_from: int  # images that an earlier process had done
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class _Packing:
    """The state of a packing after a whole shard."""

    shards: tuple[PackedShard, ...] = ()
    done: int = 0  # images that are in the shards or were skipped, in the order of packing
    skipped: tuple[tuple[str, str], ...] = ()  # (path, reason)

    @property
    def images(self) -> int:
        return sum(shard.images for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)


@dataclass(frozen=True)
class PackFolder(WorkFolder):
    """The folder that shards are packed into; ``manifest.json`` is there when all of them are."""

    KIND: ClassVar[str] = "shards that were packed"
    MANIFEST: ClassVar[str] = "manifest.json"
    OPTION: ClassVar[str] = "OUT"

    skipped = InFolder("skipped_images.txt")
    state = InFolder("packing.json")  # of a packing that is not finished

    @property
    def is_begun(self) -> bool:
        return self.manifest.is_file() or self.state.is_file()

    def begin(self, content: Mapping[str, Any], *, overwrite: bool) -> _Packing:
        """The beginning of a packing, or the state after its last finished shard; RunError for other shards, or all of them."""
        before, packing = self._read() if self.state.is_file() else (content, _Packing())
        changes = differences(before, content)
        if overwrite and (self.manifest.is_file() or changes):
            self.clear()
            packing, changes = _Packing(), []
        if self.manifest.is_file():
            raise RunError(f"The folder '{self.path}' holds shards already.", "Choose another OUT, or add --overwrite.")
        self.refuse_differences(changes)
        self.keep(packing, content)  # so that the folder is known for what it is from now on
        return packing

    def keep(self, packing: _Packing, content: Mapping[str, Any]) -> None:
        write_json(self.state, {"content": dict(content), "packing": to_dict(packing)})

    def finish(self, packing: _Packing, content: Mapping[str, Any]) -> None:
        SkippedImages.of(packing.skipped).write(self.skipped)
        shards = [to_dict(shard) for shard in packing.shards]
        counts = {"images": packing.images, "bytes": packing.bytes, "skipped": len(packing.skipped)}
        self.write_manifest({"settings": dict(content), **counts, "shards": shards})
        self.state.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes the files of a packing, and nothing else."""
        for path in (self.state, self.manifest, self.skipped):
            path.unlink(missing_ok=True)
        for shard in self.path.glob("[0-9]" * 6 + ".tar"):
            shard.unlink()
            Path(f"{shard}{SIDECAR}").unlink(missing_ok=True)

    def _read(self) -> tuple[Mapping[str, Any], _Packing]:
        """The noted content and state; nothing of both for a file that cannot be read."""
        try:
            noted = self.read_json(self.state)
            return dict(noted["content"]), from_dict(_Packing, noted["packing"])
        except (RunError, ConfigError, KeyError, TypeError, ValueError):
            return {}, _Packing()


def pack(config: PackConfig, *, overwrite: bool = False, console: Console | None = None) -> PackSummary:
    """Packs a folder of images into tar shards, or goes on with it, to the same bytes; raises SparseFormersError if it cannot."""
    console = console or Console(quiet=True)
    images, folder = ImageList(config.folder, None if config.keep_order else config.seed), PackFolder(config.out)
    with folder.held(), folder.writing():
        content = {**config.content(), "the images": images.digest()}
        packing = folder.begin(content, overwrite=overwrite)
        if not packing.done:
            packing = replace(packing, skipped=tuple(images.found.faults))
        for remark in images.found.remarks():
            say(console, remark)
        before, total = packing.done, len(images)
        with ImageProgress(console, "packing", size=total, total=total, images=before, reached=before) as bar:
            for after in _packed(images, config, folder, packing, bar):
                if not after.shards:
                    told = "; ".join(f"{path}: {reason}" for path, reason in after.skipped[:3])
                    problem = f"None of the {after.done:,} images could be read ({told})."
                    raise DataError(problem, "Give images that can be decoded.")
                folder.keep(after, content)
                packing = after
        folder.finish(packing, content)
    return PackSummary(
        out=config.out,
        shards=len(packing.shards),
        images=packing.images,
        bytes=packing.bytes,
        skipped=len(packing.skipped),
        went_on_from=before,
        seconds=bar.seconds,
        images_per_second=bar.images_per_second,
    )


def _packed(
    images: ImageList, config: PackConfig, folder: PackFolder, packing: _Packing, bar: ImageProgress
) -> Iterator[_Packing]:
    from sparseformers.data.loading import default_workers  # imports PyTorch, which the command's help does not need

    threads = default_workers() if config.workers is None else config.workers
    skipped = list(packing.skipped)
    left = islice(zip(images.names(), images.paths, strict=True), packing.done, None)
    with closing(prepared(left, config, threads=threads)) as ready:
        good = _good(ready, packing.done, skipped, bar)
        upcoming = next(good, None)
        while upcoming is not None:
            path = folder.path / f"{len(packing.shards):06}.tar"
            with replacing(path) as unfinished:
                with closing(OpenShard(unfinished, config.shard_bytes)) as shard:
                    while upcoming is not None and shard.has_room(upcoming[1]):
                        shard.add(upcoming[1])
                        upcoming = next(good, None)
                    finished, index = shard.finish(path.name)
                write_index(Path(f"{path}{SIDECAR}"), index)
            # All images before the one that had no room are in a shard or were skipped.
            done = len(images) if upcoming is None else upcoming[0]
            packing = replace(packing, shards=(*packing.shards, finished), done=done, skipped=tuple(skipped))
            yield packing
        if packing.done < len(images):
            yield replace(packing, done=len(images), skipped=tuple(skipped))


def _good(
    ready: Iterator[PackedImage], first: int, skipped: list[tuple[str, str]], bar: ImageProgress
) -> Iterator[tuple[int, PackedImage]]:
    """(place, image) of the readable images; the others are added to ``skipped``."""
    for place, image in enumerate(ready, first):
        if image.problem is None:
            yield place, image
        else:
            skipped.append((str(image.path), image.problem))
        bar.step(int(image.problem is None), int(image.problem is not None), place + 1)
