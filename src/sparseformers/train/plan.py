"""The cost of a training before it is begun: a rehearsal on this machine, and arithmetic from there.

``bootstrap --dry-run`` and ``plan`` both print what :func:`make_plan` returns. What imports PyTorch is imported where it is
used: the help of ``plan`` needs the settings here alone.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from sparseformers.errors import ConfigError
from sparseformers.settings import Above, AtLeast, Between, check_bounds
from sparseformers.train.lengths import Budget, Interval
from sparseformers.train.rehearsal import Rehearsal, rehearse, write_photographs
from sparseformers.train.settings import BootstrapConfig, DataSettings, Sources

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sparseformers.evaluation import TrainingCost
    from sparseformers.train.setup import Parts

ASSUMED_BYTES_PER_IMAGE = 110_000  # the mean of ImageNet-1k's training images


@dataclass(frozen=True, kw_only=True)
class _PlannedData(DataSettings):
    """Data."""

    data: Sources = ()
    """Images, as for bootstrap; without them steps are timed on made-up photographs."""


@dataclass(frozen=True, kw_only=True)
class PlanConfig(BootstrapConfig):
    """The settings of ``bootstrap``, which need no images here; those that change neither cost nor time are taken, too."""

    needs_data: ClassVar[bool] = False
    data: _PlannedData = _PlannedData()


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of the training that is planned, and the devices for it."""

    images: Annotated[float | None, AtLeast(1)] = None
    """Different images to learn from, such as 1.3e9; those under --data by default. Each is seen once, unless --epochs, --samples
    or --minutes say otherwise."""
    devices: Annotated[int, AtLeast(1)] = 1
    """Devices that train together, each like the one of this machine. They share the --batch-size evenly."""
    efficiency: Annotated[float, Between(0, 1, "(]", example=0.9)] = 1.0
    """Images a second of all devices together, as a share of so many times those of one."""
    bytes_per_image: Annotated[float | None, Above(0)] = None
    """Size of an image file; by default the mean under --data, else 110 kB (a training image of ImageNet)."""
    device_tflops: Annotated[float | None, Above(0)] = None
    """Plan for another device than this one: its peak in 10^12 operations a second (a multiply-add is two) for --precision, as
    its data sheet says."""
    utilisation: Annotated[float, Between(0, 1, "(]", example=0.4)] = 0.4
    """Share of that peak that is assumed to be reached."""
    measure_seconds: Annotated[float, Above(0)] = 10.0
    """Steps are timed for about so long; longer is steadier on a busy machine."""

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.images is not None and not float(self.images).is_integer():
            raise ConfigError(f"--images must be a whole number, not {self.images}.", "Use 1.3e9, for example.")


@dataclass(frozen=True)
class TrainingPlan:
    """A training before it starts; times are measured on this machine unless ``assumptions`` say otherwise."""

    teacher: str
    device: str
    devices: int
    precision: str
    inheritance: tuple[str, ...]  # sentences on what the student takes over from its teacher
    multiply_adds: TrainingCost  # for one image of the training
    train_images: int
    held_out_images: int
    samples: int  # images to see
    batch_size: int
    steps: int
    rehearsal: Rehearsal
    seconds_per_step: float
    seconds: float  # with measurements and checkpoints
    images_per_second: float  # while all devices make steps
    bytes_per_image: float  # read from disk or network for an image that is seen
    bytes_per_second: float  # read for all devices together
    model_bytes: int
    checkpoint_bytes: int  # size of a checkpoint: the model, and AdamW's two moments of what learns
    cache_gib: float
    assumptions: tuple[str, ...]  # sentences on what the figures rest on


def make_plan(settings: BootstrapConfig, scale: Scale | None = None, *, device: torch.device) -> TrainingPlan:
    """Plans a training: makes some of its steps on ``device`` and reckons from them.

    The settings may have no images if they are a :class:`PlanConfig`; without ``scale`` it is as large as it is, on one device.
    Raises ConfigError if neither images nor their number were given, or the devices cannot share a batch evenly, and another
    SparseFormersError if anything that was asked for is not to be had.
    """
    import torch

    from sparseformers.train.setup import gather_parts

    scale = Scale() if scale is None else scale
    settings = _checked(settings, scale)
    batch, run, data = settings.optimisation.batch_size, settings.run, settings.data
    with tempfile.TemporaryDirectory() as folder:
        photographs = data.data or [str(write_photographs(Path(folder) / "photographs"))]
        rehearsed = settings if data.data else settings.with_(data=photographs, holdout=0.5)
        parts = gather_parts(rehearsed, device=device)
        times = rehearse(parts, devices=scale.devices, seconds=scale.measure_seconds, folder=Path(folder) / "run")
    images = len(parts.train) if scale.images is None else int(scale.images)
    held_out = len(parts.held_out) if data.data or data.eval_data else min(data.holdout_limit, round(data.holdout * images))
    held_out *= max(1, data.eval_views)
    # From one device of this machine to all those that will train.
    cost = _training_cost(parts)
    step, measuring = times.step / scale.efficiency, held_out * times.measuring_image / scale.efficiency / scale.devices
    if scale.device_tflops is not None:
        rate = scale.devices * scale.efficiency * scale.utilisation * scale.device_tflops * 1e12 / 2
        step, measuring = batch * cost.total / rate, held_out * cost.student_forward / rate
    # How long the steps take, and all that comes between them.
    model, checkpoint = checkpoint_sizes(parts.inheritance.student)
    samples, seconds = forecast(
        settings.optimisation.budget(images),
        batch=batch,
        step=step,
        between=run.evaluations * (measuring + 2 * times.saving),  # of the newest model, and of the best one
        checkpoint=times.saving * checkpoint / model,
        checkpoint_every=Interval.parse(run.checkpoint_every).in_seconds(step=step, batch_size=batch, images=images),
    )
    cached, key = data.cache_teacher is not None, parts.cache_key
    view = 0.0 if key is None else key.bytes / (key.epochs * key.images)
    per_image = view if cached else _bytes_per_image(parts, scale, given=bool(data.data))
    return TrainingPlan(
        teacher=parts.teacher.identity.name,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        devices=scale.devices,
        precision=parts.precision,
        inheritance=tuple(parts.inheritance.report.lines()),
        multiply_adds=cost,
        train_images=images,
        held_out_images=held_out,
        samples=samples,
        batch_size=batch,
        steps=math.ceil(samples / batch),
        rehearsal=times,
        seconds_per_step=step,
        seconds=seconds,
        images_per_second=batch / step,
        bytes_per_image=per_image,
        bytes_per_second=per_image * batch / step,
        model_bytes=model,
        checkpoint_bytes=checkpoint,
        cache_gib=data.cached_views * images * view / 2**30 if cached else 0.0,
        assumptions=tuple(_assumptions(settings, scale, parts)),
    )


def _checked(settings: BootstrapConfig, scale: Scale) -> BootstrapConfig:
    """The settings, with one pass over the images if only their number was given; raises ConfigError if they allow no plan."""
    length, batch = settings.optimisation, settings.optimisation.batch_size
    if batch % scale.devices:
        problem = f"{scale.devices} devices cannot share a batch of {batch} images evenly: "
        problem += "--batch-size counts those of all together."
        raise ConfigError(problem, f"Use --batch-size {scale.devices * math.ceil(batch / scale.devices)}, for example.")
    if scale.images is None and not settings.data.data:
        raise ConfigError("Neither images nor their number were given.", "Add --images 1.3e9 or --data, for example.")
    open_length = length.epochs is None and length.samples is None and length.minutes is None
    return settings.with_(epochs=1.0) if open_length and scale.images is not None else settings


def forecast(
    budget: Budget, *, batch: int, step: float, between: float, checkpoint: float, checkpoint_every: float
) -> tuple[int, float]:
    """The images that a training sees and the seconds that it takes, one of which is given.

    ``batch`` is the images of a step of all devices together; all else is seconds: of a step, ``between`` them (all held-out
    measurements and writing the models), of a checkpoint, for which all devices wait, and from one checkpoint to the next.
    """
    if budget.samples is not None:
        seconds = budget.samples * step / batch + between
        return budget.samples, seconds + checkpoint * (1 + int(seconds / checkpoint_every))
    assert budget.seconds is not None  # one of the two is set
    resting = between + checkpoint * int(budget.seconds / checkpoint_every)
    stepping = max(step, budget.seconds - resting)
    return max(batch, int(stepping * batch / step)), stepping + resting


def checkpoint_sizes(student: nn.Module) -> tuple[int, int]:
    """Bytes of the model and of a checkpoint, which has two moments of each parameter that learns."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in student.parameters()]
    return 4 * sum(count for count, _ in counts), 4 * sum(count * (3 if learns else 1) for count, learns in counts)


def _training_cost(parts: Parts) -> TrainingCost:
    """Multiply-adds for one image, the teacher's included unless its embeddings are cached."""
    from sparseformers.evaluation import measure_training_cost

    settings, student = parts.settings, parts.inheritance.student
    elastic = settings.network.elastic
    choices = sorted({student.config.focusing.tokens, *elastic}) if elastic else [None]
    teacher = None if settings.data.cache_teacher else parts.teacher
    grid = parts.teacher.grid if settings.network.dense else None
    return measure_training_cost(student, teacher, parts.size, tokens=choices, grid=grid)


def _bytes_per_image(parts: Parts, scale: Scale, *, given: bool) -> float:
    """Bytes of an image file: as given, else the mean of those that are there, else assumed."""
    from sparseformers.train.setup import thin

    if scale.bytes_per_image is not None or not given:
        return scale.bytes_per_image or ASSUMED_BYTES_PER_IMAGE
    some = thin(parts.train, 1000)
    sizes = [size for index in range(len(some)) if (size := some.size(index)) is not None]
    return sum(sizes) / len(sizes) if sizes else ASSUMED_BYTES_PER_IMAGE


def _assumptions(settings: BootstrapConfig, scale: Scale, parts: Parts) -> Iterator[str]:
    if scale.device_tflops is not None:
        device = f"a device of {scale.device_tflops:g} TFLOP/s, {scale.utilisation:.0%} of it reached by matrix products"
        yield f"Not measured: {device}, and nothing else taking time; reading has to keep up with it."
    else:
        yield f"Every device is like this one, with {parts.workers} reading processes of its own."
    if scale.devices > 1:
        together = "perfect scaling" if scale.efficiency == 1 else f"{scale.efficiency:.0%} of perfect scaling"
        each = settings.optimisation.batch_size // scale.devices
        yield f"{scale.devices} devices, {together}: {each} images a step on each. Writing stops all of them."
    if settings.data.cache_teacher is not None:
        yield "Making the cache of views takes the teacher's time for each of them, before; it is not counted."
    elif not settings.data.data:
        yield f"Images are JPEG files of 500 x 375 pixels and {ASSUMED_BYTES_PER_IMAGE / 1000:.0f} kB, as ImageNet's are."
    yield "Checkpoints are written as fast as to this machine's temporary folder."
    yield "Not counted: starting, the measurement before the first step, and the pictures at the end."
