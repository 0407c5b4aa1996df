"""From what one device was timed at to how long a training takes on many: arithmetic alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from sparseformers.evaluation import parameters
from sparseformers.train.budget import Budget

SAVES_PER_MEASUREMENT = 2
"""The newest model and, as long as it gets better, the best one."""
FLOAT32 = 4
"""Bytes of a number."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast one device is, measured or assumed."""

    step: float
    """Seconds of a step."""
    held_out: float
    """Seconds of a measurement on all held-out images."""
    saving: float
    """Seconds of writing the model."""


@dataclass(frozen=True)
class Forecast:
    """How long a training takes."""

    samples: int
    """Images seen."""
    steps: int
    """Optimiser steps, of a batch on each device."""
    seconds: float
    """All of it."""
    stepping: float
    """Seconds of it for steps."""
    measuring: float
    """Seconds of it for held-out measurements."""
    saving: float
    """Seconds of it for writing models and checkpoints."""

    @property
    def images_per_second(self) -> float:
        """Of all devices together, while they make steps."""
        return self.samples / self.stepping


def forecast(
    budget: Budget,
    pace: Pace,
    *,
    batch: int,
    devices: int,
    efficiency: float,
    evaluations: int,
    checkpoint_seconds: float,
    checkpoint_models: float,
) -> Forecast:
    """How long a training takes, or how far it comes in the time that it has.

    Steps and measurements are shared out over the devices; writing is not, all devices wait for it. The measurement before the
    first step is not counted, as it is not in a run's own seconds.

    Args:
        budget: images to see, or seconds to spend.
        pace: of one device.
        batch: images of a step on each device.
        devices: how many.
        efficiency: share of their number that so many of them amount to, in (0, 1].
        evaluations: held-out measurements.
        checkpoint_seconds: from one checkpoint to the next; the last one comes at the end.
        checkpoint_models: size of a checkpoint as so many times that of the model.
    """
    rate = batch * devices * efficiency / pace.step
    measuring = evaluations * pace.held_out / (devices * efficiency)
    models = evaluations * SAVES_PER_MEASUREMENT * pace.saving
    checkpoint = checkpoint_models * pace.saving
    if budget.samples is not None:
        samples, stepping = budget.samples, budget.samples / rate
        saving = models + checkpoint * (1 + int((stepping + measuring + models) / checkpoint_seconds))
    else:
        assert budget.seconds is not None  # one of the two is set
        saving = models + checkpoint * int(budget.seconds / checkpoint_seconds)
        stepping = max(pace.step, budget.seconds - measuring - saving)
        samples = max(batch * devices, int(stepping * rate))
    steps = math.ceil(samples / (batch * devices))
    return Forecast(samples, steps, stepping + measuring + saving, stepping, measuring, saving)


@dataclass(frozen=True)
class Sizes:
    """What a run writes, in bytes."""

    model: int
    """``model.safetensors``: all parameters in float32."""
    optimiser: int
    """AdamW's two moments of what learns."""
    checkpoint: int
    """All that resuming needs: the two together."""


def sizes_of(student: nn.Module) -> Sizes:
    """Sizes by the number of parameters.

    Args:
        student: with ``requires_grad`` set by inheritance.
    """
    learning = FLOAT32 * sum(parameter.numel() for parameter in student.parameters() if parameter.requires_grad)
    model, optimiser = FLOAT32 * parameters(student), 2 * learning
    return Sizes(model, optimiser, model + optimiser)


def view_bytes(size: tuple[int, int], width: int) -> int:
    """A cached view: its pixels in bytes and the teacher's embedding of it in float32.

    Args:
        size: height and width in pixels.
        width: channels of the embedding.
    """
    return 3 * size[0] * size[1] + FLOAT32 * width
