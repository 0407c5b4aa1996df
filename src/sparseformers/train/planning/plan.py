"""The plan that ``plan`` and ``--dry-run`` print: what is learnt, what it costs, how long it takes, what it reads and writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from sparseformers.evaluation import Cost, TrainingCost, measure_cost, measure_training_cost
from sparseformers.train.budget import Budget
from sparseformers.train.cache.make import is_made
from sparseformers.train.cache.views import ViewCache, open_cache
from sparseformers.train.checkpoints.interval import Interval
from sparseformers.train.metrics import peak_memory
from sparseformers.train.planning.config import PlanConfig, Scale
from sparseformers.train.planning.forecast import Forecast, Pace, Sizes, forecast, sizes_of, view_bytes
from sparseformers.train.planning.rehearsal import Measured, rehearse, time_teacher
from sparseformers.train.setup import Parts, gather_parts, thin

ASSUMED_BYTES_PER_IMAGE = 110_000
"""A training image of ImageNet-1k, on average."""
SIZES_LOOKED_AT = 1000
"""Files whose mean size is taken for that of all."""


@dataclass(frozen=True)
class Plan:
    """A training before it starts; times are measured on this machine unless ``assumptions`` say otherwise."""

    teacher: str
    """As it was named."""
    device: str
    """What was measured on."""
    devices: int
    """How many of them train together."""
    parameters: dict[str, int]
    """Of the student, by group: new, tuned, frozen."""
    inheritance: tuple[str, ...]
    """What is inherited, in sentences."""
    student_cost: Cost
    """Of the student at the run's image size."""
    teacher_cost: Cost
    """Of the teacher at the run's image size."""
    training_cost: TrainingCost
    """Multiply-adds for one image of the training."""
    train_images: int
    """Different images to learn from."""
    held_out_images: int
    """Images to measure progress on."""
    samples: int
    """Images that will be seen."""
    batch_size: int
    """Images of a step on each device."""
    steps: int
    """Optimiser steps."""
    measured: Measured
    """Times of one device of this machine."""
    seconds_per_step: float
    """Planned with: measured, or assumed of another device."""
    seconds: float
    """Estimated length of the training, measurements and checkpoints included, a cache of views not."""
    forecast: Forecast
    """What that is made of."""
    images_per_second: float
    """Of all devices together."""
    bytes_per_image: float
    """Read from disk or network for one image that is seen."""
    bytes_per_second: float
    """To be read for all devices together."""
    sizes: Sizes
    """Of what the run writes, in bytes."""
    cache_gib: float
    """Size of the cache of views; 0 without one."""
    cache_seconds: float
    """Estimated time to make it, by one device and reading images not counted; 0 without one or if it is there."""
    memory_gib: float
    """Measured after those steps; reading images adds some hundred megabytes a worker."""
    precision: str
    """Of matrix products."""
    assumptions: tuple[str, ...]
    """What the figures rest on, in sentences."""


def make_plan(parts: Parts, scale: Scale | None = None) -> Plan:
    """Measures some steps and reckons from them; the student is thrown away afterwards.

    Args:
        parts: of the training, with or without images.
        scale: how large it is to be; as it is, on this device, by default.
    """
    scale = Scale() if scale is None else scale
    settings, student = parts.settings, parts.inheritance.student
    images = len(parts.train) if scale.images is None else int(scale.images)
    parts = dataclasses.replace(parts, budget=Budget.of(settings, images=images))
    cache = _ready_cache(parts)
    cost = _training_cost(parts)
    measured = rehearse(parts, seconds=scale.measure_seconds, cache=cache)
    held_out = _held_out(parts, images)
    pace = _pace(parts, scale, cost, measured, held_out)
    sizes = sizes_of(student)
    length = forecast(
        parts.budget,
        pace,
        batch=settings.optimisation.batch_size,
        devices=scale.devices,
        efficiency=scale.efficiency,
        evaluations=settings.run.evaluations,
        checkpoint_seconds=Interval.parse(settings.run.checkpoint_every, flag="--checkpoint-every").in_seconds(
            step=pace.step / scale.efficiency, batch_size=settings.optimisation.batch_size * scale.devices, images=images
        ),
        checkpoint_models=sizes.checkpoint / sizes.model,
    )
    view = view_bytes(parts.size, parts.teacher.anatomy.embedding_width)
    cached = settings.data.cache_teacher is not None
    per_image = view if cached else _bytes_per_image(parts, scale)
    return Plan(
        teacher=parts.teacher.identity.name,
        device=_device_name(parts.device),
        devices=scale.devices,
        parameters=parts.inheritance.report.parameters,
        inheritance=tuple(parts.inheritance.report.lines()),
        student_cost=measure_cost(student, parts.size),
        teacher_cost=measure_cost(parts.teacher, parts.size),
        training_cost=cost,
        train_images=images,
        held_out_images=held_out,
        samples=length.samples,
        batch_size=settings.optimisation.batch_size,
        steps=length.steps,
        measured=measured,
        seconds_per_step=pace.step,
        seconds=length.seconds,
        forecast=length,
        images_per_second=length.images_per_second,
        bytes_per_image=per_image,
        bytes_per_second=per_image * length.images_per_second,
        sizes=sizes,
        cache_gib=settings.data.cached_views * images * view / 2**30 if cached else 0.0,
        cache_seconds=_cache_seconds(parts, scale, images) if cached and cache is None else 0.0,
        memory_gib=peak_memory(parts.device) / 2**30,
        precision=parts.precision,
        assumptions=tuple(_assumptions(parts, scale, measured)),
    )


def plan_of(settings: PlanConfig, scale: Scale, *, device: torch.device) -> Plan:
    """The plan of a training that may have no images yet.

    Args:
        settings: of the training.
        scale: how large it is to be.
        device: to measure on.

    Raises:
        SparseFormersError: if anything that was asked for is not to be had.
    """
    return make_plan(gather_parts(scale.length_of(settings), device=device), scale)


def _training_cost(parts: Parts) -> TrainingCost:
    """Multiply-adds for one image, the teacher's included unless its embeddings are cached."""
    settings, student = parts.settings, parts.inheritance.student
    choices = sorted({student.config.focusing.tokens, *settings.network.elastic}) if settings.network.elastic else [None]
    teacher = None if settings.data.cache_teacher is not None else parts.teacher
    return measure_training_cost(student, teacher, parts.size, tokens=choices)


def _pace(parts: Parts, scale: Scale, cost: TrainingCost, measured: Measured, held_out: int) -> Pace:
    """Of one device: as measured here, or as multiply-adds tell of another one."""
    if scale.device_tflops is None:
        return Pace(step=measured.step, held_out=held_out * measured.held_out_image, saving=measured.saving)
    return Pace(
        step=_assumed_seconds(scale, cost.total * parts.settings.optimisation.batch_size),
        held_out=_assumed_seconds(scale, cost.student_forward * held_out),
        saving=measured.saving,
    )


def _assumed_seconds(scale: Scale, multiply_adds: int) -> float:
    """What a device of the peak that was given takes for them; 0 where none was given."""
    assert scale.device_tflops is not None
    return 2 * multiply_adds / (scale.device_tflops * 1e12 * scale.utilisation)


def _held_out(parts: Parts, images: int) -> int:
    """Views that progress is measured on; the share of images that are not there yet is as many as asked for."""
    settings = parts.settings
    if parts.held_out:
        return len(parts.held_out) * max(1, settings.data.eval_views)
    return min(settings.data.holdout_limit, round(settings.data.holdout * images)) * max(1, settings.data.eval_views)


def _bytes_per_image(parts: Parts, scale: Scale) -> float:
    """As given, else the mean of the files that are there, else assumed."""
    if scale.bytes_per_image is not None:
        return scale.bytes_per_image
    if not parts.train:
        return ASSUMED_BYTES_PER_IMAGE
    some = thin(parts.train, SIZES_LOOKED_AT)
    sizes = [size for index in range(len(some)) if (size := some.size(index)) is not None]
    return sum(sizes) / len(sizes) if sizes else ASSUMED_BYTES_PER_IMAGE


def _ready_cache(parts: Parts) -> ViewCache | None:
    """The cache of views if it is there and whole."""
    if parts.cache_key is None or parts.cache_folder is None or not is_made(parts):
        return None
    return open_cache(parts.cache_folder, parts.cache_key)


def _cache_seconds(parts: Parts, scale: Scale, images: int) -> float:
    """Time that the teacher takes for all views that are still to be cached."""
    views = parts.settings.data.cached_views * images
    if scale.device_tflops is not None:
        return _assumed_seconds(scale, views * measure_cost(parts.teacher, parts.size).multiply_adds)
    return views / parts.settings.optimisation.batch_size * time_teacher(parts)


def _device_name(device: torch.device) -> str:
    """What a person calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def _assumptions(parts: Parts, scale: Scale, measured: Measured) -> Iterator[str]:
    """What the figures rest on."""
    each = parts.settings.optimisation.batch_size
    if scale.device_tflops is not None:
        yield (
            f"Not measured: a device of {scale.device_tflops:g} TFLOP/s, {scale.utilisation:.0%} of it reached by matrix "
            "products, and nothing else taking time."
        )
    else:
        yield f"Every device is like this one ({_device_name(parts.device)}), with {parts.workers} reading processes of its own."
    together = "perfect scaling" if scale.efficiency == 1 else f"{scale.efficiency:.0%} of perfect scaling"
    if scale.devices > 1:
        yield (
            f"{scale.devices} devices, {together}: {each} images a step on each, so that bootstrap takes "
            f"--batch-size {each * scale.devices}. Writing stops all of them."
        )
    yield from _assumptions_of_reading(parts, scale, measured)
    yield "Checkpoints are written as fast as to this machine's temporary folder."
    yield "Not counted: starting, the measurement before the first step, and the pictures at the end."
    if parts.settings.data.cache_teacher is not None:
        yield "The cache of views is made by one device, before; reading the images for it is not counted."


def _assumptions_of_reading(parts: Parts, scale: Scale, measured: Measured) -> Iterator[str]:
    if not measured.reads:
        yield "Steps were timed on random images: reading has to keep up with them."
    elif scale.device_tflops is not None:
        yield "Reading has to keep up with that device; what it makes here is measured."
    elif parts.settings.data.cache_teacher is None:
        yield "Steps were timed with images read from --data, by processes that share the processor with the training."
    if parts.settings.data.cache_teacher is None and scale.bytes_per_image is None and not parts.train:
        yield f"An image file has {ASSUMED_BYTES_PER_IMAGE / 1000:.0f} kB, as those of ImageNet have."
