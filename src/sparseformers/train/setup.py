"""From settings to everything that a training needs: the plan and the run are made of the same parts."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn

from sparseformers.config import MixedResolutionConfig
from sparseformers.data.dataset import Batch, ImageViews, SampleStream, batch_loader
from sparseformers.data.images import UnreadableImageError
from sparseformers.data.loading import default_workers, images_on
from sparseformers.data.mixture import open_source, split_source, without_images_of
from sparseformers.data.shard_files import ShardFiles, default_shard_folder
from sparseformers.data.sources import BadShare, FolderSource, ImageSource
from sparseformers.data.transforms import training_view
from sparseformers.errors import ConfigError, DataError, shorten
from sparseformers.evaluation.attention import AttendingTeacher
from sparseformers.inheritance import Inheritance, inherit
from sparseformers.inheritance.fitted import fit_map, fit_start
from sparseformers.model import recompute_blocks
from sparseformers.modes import Precision, resolve_precision
from sparseformers.opening import refuse_more_tokens
from sparseformers.processes import agreed, process_state
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.train.lengths import Budget
from sparseformers.train.settings import BootstrapConfig
from sparseformers.train.view_cache import CacheKey, ViewCache, answered, make_cache_key

FITTED_TOKENS = 16_384  # latent tokens that the fitted start is fitted on, over all images
FEWEST_MAP_IMAGES, MAP_IMAGES, MAP_SHARE = 256, 2_048, 0.2
"""Views that the map of a mixed-resolution front is fitted on: as many as there are images, within these bounds, and at most this
share of the time of a training by the clock, but for a quarter of the fewest."""


@dataclass(frozen=True)
class Parts:
    """Everything that a training is made of; networks are on the device."""

    settings: BootstrapConfig
    teacher: Teacher
    inheritance: Inheritance
    train: ImageSource
    held_out: ImageSource  # to measure progress on, never learnt from
    budget: Budget
    precision: Precision
    workers: int
    device: torch.device
    cache_key: CacheKey | None = None  # None if views are made on the way

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.teacher.preprocessing.size

    @property
    def noise(self) -> Tensor:
        """One image 1 x 3 x H x W for a process that has none, where it has to take part in a step all the same."""
        return torch.rand(1, 3, *self.size, generator=torch.Generator().manual_seed(0))

    @property
    def has_map(self) -> bool:
        """Whether the student chooses its RoIs by a map of the teacher's attention."""
        return isinstance(self.inheritance.student.config.focusing, MixedResolutionConfig)

    def telling_teacher(self) -> Teacher | AttendingTeacher:
        """The teacher, with its attention and its patch tokens as far as the student learns of them."""
        if not (self.has_map or self.settings.network.dense):
            return self.teacher
        return AttendingTeacher(self.teacher, attends=self.has_map, layer=self.settings.network.dense_layer)

    @property
    def cache_folder(self) -> Path | None:
        """The folder of the cache of views that the run trains on, made or not."""
        root = self.settings.data.cache_teacher
        return None if root is None or self.cache_key is None else root / self.cache_key.digest

    def training_views(self) -> ImageViews:
        view = training_view(self.size, self.settings.data.augment, crop_scale=self.settings.data.crop_scale)
        return ImageViews(self.train, view, seed=self.settings.views_seed)


def gather_parts(
    settings: BootstrapConfig, *, device: torch.device, teacher: nn.Module | None = None, precision: Precision | None = None
) -> Parts:
    """Finds the images, loads the teacher (if it is not a module already) and makes the student; cheap checks come first."""
    network, learning = settings.network, settings.optimisation
    train, held_out = gather_images(settings) if settings.data.data else (FolderSource(()), FolderSource(()))  # a plan needs none
    loaded = load_teacher(teacher or network.teacher, image_size=network.image_size, crop=network.crop)
    refuse_more_tokens(max([network.tokens or 0, *network.elastic]), loaded.patch_tokens)
    names = ("front", "tokens", "truncate", "tune", "freeze", "focusing_width", "channels", "points", "iterations")
    layer = network.dense_layer if network.dense else None
    inheritance = inherit(loaded, seed=learning.seed, dense_layer=layer, **{name: getattr(network, name) for name in names})
    student = inheritance.student
    for tokens in network.elastic:
        try:
            student.config.focusing.check_tokens(tokens)
        except ValueError as error:
            raise ConfigError(f"--elastic {tokens} is impossible: {error}.", "Name one of these, or use --front grid.") from None
    if learning.gradient_checkpointing:
        recompute_blocks(student)
    if not (learning.shard_weights and process_state().num_processes > 1):  # it may not fit, before it is sharded
        student.to(device)
    precision = precision or resolve_precision(learning.precision, device)
    cache_key = None
    if settings.data.cache_teacher is not None and train:
        made_by = {"fingerprint": inheritance.provenance.teacher_fingerprint, "precision": precision}
        has_map = isinstance(student.config.focusing, MixedResolutionConfig)
        cache_key = make_cache_key(settings, loaded, **made_by, images=train, has_map=has_map, dense_layer=layer)
    return Parts(
        settings=settings,
        teacher=loaded.to(device),
        inheritance=inheritance,
        train=train,
        held_out=held_out,
        budget=learning.budget(len(train)),
        precision=precision,
        workers=default_workers() if settings.run.workers is None else settings.run.workers,
        device=device,
        cache_key=cache_key,
    )


def gather_images(settings: BootstrapConfig) -> tuple[ImageSource, ImageSource]:
    """Images to learn from and held-out ones; raises DataError if there are too few of either, or too many bad ones."""
    data = settings.data
    train = _opened(settings, data.data, data.weight or None)
    if data.eval_data:
        held_out = _opened(settings, data.eval_data, None)
        train = without_images_of(train, held_out)
    else:
        train, held_out = split_source(train, data.holdout, seed=settings.views_seed)
    if not can_read(train, 1):
        raise DataError(f"None of the {len(train)} training images can be read.", "Name another folder with --data.")
    if not can_read(held_out, 1 if settings.data.eval_views > 1 else 2):
        problem = f"Too few of the {len(held_out)} held-out images can be read to measure progress on."
        raise DataError(problem, "Raise --holdout, add images, or name a folder with --eval-data.")
    faults = [f"{name}: {reason}" for name, reason in train.faults()]
    BadShare(missing=train.missing(), images=len(train), most=settings.data.max_bad).refuse(shorten(faults, limit=3))
    return train, thin(held_out, settings.data.holdout_limit)


def _opened(settings: BootstrapConfig, data: Sequence[str | Path], weights: Sequence[float] | None) -> ImageSource:
    own, names = settings.data, [str(each) for each in data]
    files = ShardFiles(own.shard_cache or default_shard_folder(), most_bytes=round(own.shard_cache_gb * 2**30))
    return open_source(names, weights=weights, files=files, window=own.shuffle_shards, most_pixels=own.max_pixels)


def can_read(images: ImageSource, count: int) -> bool:
    """Whether at least ``count`` of the images can be read; reads no more of them than it takes to know."""
    places = iter(range(len(images)))
    while count and (index := next(places, None)) is not None:
        with suppress(UnreadableImageError):
            images.read(index)
            count -= 1
    return not count


def thin(images: ImageSource, limit: int) -> ImageSource:
    """At most ``limit`` of the images, evenly spread over them."""
    step = max(1, -(-len(images) // limit))
    return images if step == 1 else images.only(range(0, len(images), step))


class FrontFit(NamedTuple):
    """How fitting the start of a front went."""

    told: str = ""  # for the log
    seconds: float = 0.0
    answers: Sequence[Batch] = ()  # first batches of the training with the teacher's answers, without their images


def fit_front(parts: Parts, cache: ViewCache | None, accelerator: Accelerator, console: Console) -> FrontFit:
    """Fits the starting values of the front on the first images, or their cached views."""
    start, student, seed = time.perf_counter(), parts.inheritance.student, parts.settings.optimisation.seed
    told, answers = "", list[Batch]()
    if parts.has_map:
        views = min(max(len(parts.train), FEWEST_MAP_IMAGES), parts.budget.samples or MAP_IMAGES, MAP_IMAGES)
        batches = answered(parts, _first_batches(parts, cache, views), "looking at the teacher", views, console)
        fit = fit_map(student, _with_maps(parts, batches, answers, accelerator), seed=seed)
        told = f"the fitted map is {fit.divergence:.3f} nats from the teacher's, a flat one {fit.flat:.3f}"
    elif parts.settings.network.start == "fitted":
        most = math.ceil(FITTED_TOKENS / student.config.focusing.tokens)
        read = _first_batches(parts, cache, min(len(parts.train), most))
        # A student that is to be sharded is not on the device yet.
        images = images_on(next(student.parameters()).device, torch.cat([batch.images for batch in read]))
        left = fit_start(student, parts.teacher, images, truncated=parts.inheritance.provenance.shares.truncate, seed=seed)
        told = f"the fitted start leaves {left:.2f} of the variance of the teacher's tokens"
    # A step on the same images gets the same answers to the bit where it runs the same teacher on the same batch.
    learning = parts.settings.optimisation
    is_same = accelerator.num_processes == learning.accumulate == 1 and not learning.compile and not parts.settings.network.dense
    seconds = agreed(time.perf_counter() - start, accelerator)
    return FrontFit(told, seconds, answers if is_same and cache is None else ())


def _first_batches(parts: Parts, cache: ViewCache | None, most: int) -> Iterator[Batch]:
    """The batches of the first images of the training, at most so many; raises DataError if fewer than two can be read."""
    learning = parts.settings.optimisation
    stream = SampleStream(parts.train.sample_order(), batch_size=learning.batch_size, seed=learning.seed, total=most)
    batches = batch_loader(parts.training_views(), stream, workers=parts.workers) if cache is None else cache.batches(stream)
    count = 0
    for batch in (each for each in batches if len(each.images)):
        count += len(batch.images)
        yield batch
    if count < 2:
        problem = f"Fewer than two of the {most} images that the start was to be fitted on can be read."
        raise DataError(problem, "Name another folder with --data.")


def _with_maps(
    parts: Parts, batches: Generator[Batch], answers: list[Batch], accelerator: Accelerator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images in [0, 1] and attention maps of batches, on the student's device, while there is time for it; keeps the answers."""
    device, seen = next(parts.inheritance.student.parameters()).device, 0
    start, most = time.perf_counter(), MAP_SHARE * (parts.budget.seconds or math.inf)
    with closing(batches):
        for batch in batches:
            assert batch.attention_maps is not None  # as the teacher was asked for them
            yield images_on(device, batch.images), batch.attention_maps.to(device)
            answers.append(batch._replace(images=torch.empty(0), tokens=None))
            seen += len(batch.images)
            if seen >= FEWEST_MAP_IMAGES // 4 and agreed(time.perf_counter() - start, accelerator) > most:
                return
