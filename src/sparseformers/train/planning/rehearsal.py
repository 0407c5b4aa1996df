"""Times on this machine: of real steps of a training, of their parts, and of what a training does beside them."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from sparseformers.data import Batch, SampleStream, SkippedImages, training_loader
from sparseformers.data.dataset import BATCHES_AHEAD
from sparseformers.modes import autocast_dtype
from sparseformers.processes import make_accelerator
from sparseformers.saving import save
from sparseformers.train.budget import Budget
from sparseformers.train.cache.views import ViewCache
from sparseformers.train.held_out import FOCUS_IMAGES, HeldOut
from sparseformers.train.objective import teacher_targets
from sparseformers.train.planning.step_parts import StepInParts, seconds_of
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.setup import Parts, thin
from sparseformers.train.step import TrainingStep
from sparseformers.train.trainer import Trainer

FEWEST_STEPS = 3
"""Steps and batches that are timed however long they take."""
HELD_OUT_BATCHES = 8
"""Batches of held-out images that a measurement is timed on."""
VIEWS_IN_MEMORY = 64 * 2**20
"""Bytes of made-up views that stand in for a cache which is still to be made."""


@dataclass(frozen=True)
class StepParts:
    """Median seconds of the parts of a step, its images at hand."""

    teacher: float
    """The teacher's embeddings; 0 where they are cached."""
    forward: float
    """The student and the loss."""
    backward: float
    """The gradients."""
    optimiser: float
    """Clipping, and the step itself."""


@dataclass(frozen=True)
class Measured:
    """What was timed, in seconds; steps are of one batch on one device."""

    parts: StepParts
    """Of a step."""
    step: float
    """Mean of whole steps one after another, waiting for their images included."""
    data_wait: float
    """Share of that spent waiting for images, in [0, 1]."""
    reading: float | None
    """Images a second of the reading processes alone; None where no images are read."""
    held_out_image: float
    """Of a held-out measurement, for each of its images."""
    saving: float
    """Of writing the model."""
    reads: bool
    """Whether ``step`` and ``held_out_image`` include reading images."""


def rehearse(parts: Parts, *, seconds: float, cache: ViewCache | None = None) -> Measured:
    """Times a training; its student is of no use afterwards.

    Args:
        parts: of the training; without images of their own, random ones take their place.
        seconds: to time steps for, after warming up.
        cache: views with the teacher's embeddings, if they are there already; made-up ones are used if they are still to be made.
    """
    endless = dataclasses.replace(parts, budget=Budget(samples=None, seconds=1e12))
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        accelerator = make_accelerator()
        held_out, held_out_image = _time_held_out(endless, accelerator)
        trainer = Trainer(endless, run, accelerator, cache=cache)
        reading = _time_reading(endless, seconds / 2) if _reads(endless) else None
        images = random_images(parts)
        step = trainer.make_step(held_out)
        mean, data_wait = _time_steps(trainer, step, _batches(endless, images, cache), endless, seconds)
        times = _time_parts(endless, step, images)
        saving = seconds_of(lambda: save(trainer.student, run.model, provenance=parts.inheritance.provenance))
    return Measured(times, mean, data_wait, reading, held_out_image, saving, reads=bool(parts.train))


def random_images(parts: Parts) -> Tensor:
    """A batch of noise on the device of the training: B x 3 x H x W in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(parts.settings.optimisation.batch_size, 3, *parts.size, generator=generator).to(parts.device)


def time_teacher(parts: Parts) -> float:
    """Median seconds that the teacher takes for a batch."""
    images, dtype = random_images(parts), autocast_dtype(parts.precision)
    with_tokens = parts.settings.optimisation.token_weight > 0
    return _median(lambda: teacher_targets(parts.teacher, images, dtype, with_tokens=with_tokens), parts)


def _reads(parts: Parts) -> bool:
    """Whether steps decode image files."""
    return bool(parts.train) and parts.settings.data.cache_teacher is None


def _batches(parts: Parts, images: Tensor, cache: ViewCache | None) -> Iterable[Batch] | None:
    """What to learn from in the place of the training's own stream; None for that."""
    if _reads(parts) or cache is not None:
        return None
    if parts.settings.data.cache_teacher is None:
        return itertools.repeat(Batch(images, torch.zeros(len(images), dtype=torch.int64), ()))
    made_up = _made_up_cache(parts)
    return made_up.batches(SampleStream(made_up.images.shape[1], batch_size=len(images), seed=0, total=None))


def _made_up_cache(parts: Parts) -> ViewCache:
    """Noise for views, so many that they do not stay in the processor's caches."""
    count = max(1, VIEWS_IN_MEMORY // (3 * parts.size[0] * parts.size[1]))
    generator = np.random.default_rng(0)
    return ViewCache(
        folder=Path(),
        images=generator.integers(0, 256, (1, count, 3, *parts.size), dtype=np.uint8),
        embeddings=generator.standard_normal((1, count, parts.teacher.anatomy.embedding_width), dtype=np.float32),
        unreadable={},
    )


def _time_steps(
    trainer: Trainer, step: TrainingStep, batches: Iterable[Batch] | None, parts: Parts, seconds: float
) -> tuple[float, float]:
    """Mean seconds of a step, and the share of them spent waiting for images."""
    steps = trainer.rehearse(step, batches)
    # What the reading processes have made before the first step must not count as if it came for nothing.
    ahead = parts.workers * BATCHES_AHEAD if batches is None and _reads(parts) else 0
    _drain(steps, fewest=1 + ahead, seconds=0.0)
    trainer.meters.read()
    mean = _drain(steps, fewest=FEWEST_STEPS, seconds=seconds)
    return mean, trainer.meters.read()["data_wait"]


def _drain(steps: Iterator[object], *, fewest: int, seconds: float) -> float:
    """Takes steps for so many seconds, and ``fewest`` of them at least; returns the mean seconds of one."""
    start = time.perf_counter()
    for taken in itertools.count(1):
        next(steps)
        elapsed = time.perf_counter() - start
        if taken >= fewest and elapsed >= seconds:
            break
    return elapsed / taken


def _time_parts(parts: Parts, step: TrainingStep, images: Tensor) -> StepParts:
    """The parts of a step one by one, each the median of several."""
    works = dict(StepInParts(step, images).parts)
    if parts.settings.data.cache_teacher is not None:
        del works["teacher"]
    rounds = [[seconds_of(work, parts.device) for work in works.values()] for _ in range(1 + FEWEST_STEPS)]
    medians = [statistics.median(times) for times in zip(*rounds[1:], strict=True)]
    return StepParts(**{"teacher": 0.0, **dict(zip(works, medians, strict=True))})


def _time_reading(parts: Parts, seconds: float) -> float:
    """Images a second that the reading processes make when nothing else is done."""
    settings = parts.settings
    stream = SampleStream(parts.order, batch_size=settings.optimisation.batch_size, seed=settings.optimisation.seed, total=None)
    loader = iter(training_loader(parts.training_views(), stream, workers=parts.workers))
    _drain(loader, fewest=1 + parts.workers * BATCHES_AHEAD, seconds=0.0)
    return settings.optimisation.batch_size / _drain(loader, fewest=FEWEST_STEPS, seconds=seconds)


def _time_held_out(parts: Parts, accelerator: Accelerator) -> tuple[HeldOut, float]:
    """Some of the held-out images, or noise in their place, and the seconds of a measurement for each of them."""
    settings = parts.settings
    if parts.held_out:
        some = thin(parts.held_out, max(2, HELD_OUT_BATCHES * settings.optimisation.batch_size))
        held_out = HeldOut(dataclasses.replace(parts, held_out=some), SkippedImages(), accelerator)
    else:
        held_out = _HeldOutNoise(parts, SkippedImages(), accelerator)
    seconds = seconds_of(lambda: held_out.measure(parts.inheritance.student), parts.device)
    return held_out, seconds / len(held_out.teacher)


class _HeldOutNoise(HeldOut):
    """Two batches of noise in the place of held-out images."""

    def _rounds(self) -> int:
        return 2

    def _focus_images(self) -> tuple[Tensor, list[str]]:
        images = random_images(self.parts)[:FOCUS_IMAGES]
        return images, ["noise"] * len(images)

    def _batches(self) -> DataLoader[Batch]:
        images = random_images(self.parts)[: self.batch_size]
        places = torch.arange(2 * len(images)).split(len(images))
        return cast("DataLoader[Batch]", [Batch(images, indices, ()) for indices in places])


def _median(work: Callable[[], object], parts: Parts) -> float:
    """Seconds that some work takes, after a first time that warms up."""
    return statistics.median([seconds_of(work, parts.device) for _ in range(1 + FEWEST_STEPS)][1:])
