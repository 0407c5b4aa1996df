"""The plan that ``--dry-run`` prints: what will be learnt, what it costs, how long it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from sparseformers.bootstrap.meters import peak_memory
from sparseformers.bootstrap.objective import alignment_loss
from sparseformers.bootstrap.optimiser import build_optimiser
from sparseformers.bootstrap.precision import autocast_dtype
from sparseformers.bootstrap.setup import Parts
from sparseformers.evaluate import Cost, measure_cost

MEASURED_STEPS = 2
"""Steps that are timed after a first one that warms up."""


@dataclass(frozen=True)
class Plan:
    """A training before it starts; times are measured on this machine, with random images."""

    teacher: str
    """As it was named."""
    parameters: dict[str, int]
    """Of the student, by group: new, tuned, frozen."""
    inheritance: tuple[str, ...]
    """What is inherited, in sentences."""
    student_cost: Cost
    """Of the student at the run's image size."""
    teacher_cost: Cost
    """Of the teacher at the run's image size."""
    train_images: int
    """Different images to learn from."""
    held_out_images: int
    """Images to measure progress on."""
    samples: int
    """Images that will be seen."""
    steps: int
    """Optimiser steps."""
    seconds_per_step: float
    """Measured, reading images not counted (it goes on beside)."""
    seconds: float
    """Estimated length of the training."""
    memory_gib: float
    """Measured after those steps; reading images adds some hundred megabytes a worker."""
    precision: str
    """Of matrix products."""


def make_plan(parts: Parts) -> Plan:
    """Measures a few steps on random images, on copies of nothing: the student is thrown away after a dry run."""
    settings, student = parts.settings, parts.inheritance.student
    images = torch.rand(settings.batch_size, 3, *parts.size, generator=torch.Generator().manual_seed(0)).to(parts.device)
    seconds = _seconds_per_step(parts, images)
    if parts.budget.samples is not None:
        samples = parts.budget.samples
        total = samples / settings.batch_size * seconds
    else:
        total = parts.budget.seconds or 0.0
        samples = int(total / seconds) * settings.batch_size
    return Plan(
        teacher=parts.teacher.identity.name,
        parameters=parts.inheritance.report.parameters,
        inheritance=tuple(parts.inheritance.report.lines()),
        student_cost=measure_cost(student, parts.size),
        teacher_cost=measure_cost(parts.teacher, parts.size),
        train_images=len(parts.train),
        held_out_images=len(parts.held_out),
        samples=samples,
        steps=-(-samples // settings.batch_size),
        seconds_per_step=seconds,
        seconds=total,
        memory_gib=peak_memory(parts.device) / 2**30,
        precision=parts.precision,
    )


def _seconds_per_step(parts: Parts, images: torch.Tensor) -> float:
    """Shortest time of a whole step: teacher, student forward and backward, optimiser."""
    settings, student = parts.settings, parts.inheritance.student
    optimiser = build_optimiser(
        student, lr=settings.lr, tuned_lr_ratio=settings.tuned_lr_ratio, weight_decay=settings.weight_decay
    )
    dtype, shortest = autocast_dtype(parts.precision), float("inf")
    for _ in range(1 + MEASURED_STEPS):
        start = time.perf_counter()
        alignment_loss(student, parts.teacher, images, dtype).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if parts.device.type == "cuda":
            torch.cuda.synchronize(parts.device)
        shortest = min(shortest, time.perf_counter() - start)
    return shortest
