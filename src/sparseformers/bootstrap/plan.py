"""The plan that ``--dry-run`` prints: what will be learnt, what it costs, how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sparseformers.bootstrap.make_cache import is_made
from sparseformers.bootstrap.meters import peak_memory
from sparseformers.bootstrap.objective import alignment_loss, teacher_embedding
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
    cache_gib: float
    """Size of the cache of views; 0 without one."""
    cache_seconds: float
    """Estimated time to make it, reading images not counted; 0 without one or if it is there."""
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
        cache_gib=0.0 if parts.cache_key is None else parts.cache_key.bytes / 2**30,
        cache_seconds=_cache_seconds(parts, images),
        memory_gib=peak_memory(parts.device) / 2**30,
        precision=parts.precision,
    )


def _seconds_per_step(parts: Parts, images: torch.Tensor) -> float:
    """Shortest time of a whole step: teacher (unless its embeddings are cached), student forward and backward, optimiser."""
    settings, student = parts.settings, parts.inheritance.student
    optimiser = build_optimiser(
        student,
        lr=settings.lr,
        lr_ratios=settings.lr_ratios,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
    )
    dtype = autocast_dtype(parts.precision)
    targets = None if parts.cache_key is None else torch.ones(len(images), parts.cache_key.width, device=parts.device)

    def step() -> None:
        alignment_loss(student, parts.teacher, images, dtype, targets).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return _shortest(step, parts)


def _cache_seconds(parts: Parts, images: torch.Tensor) -> float:
    """Time that the teacher takes for all views that are still to be cached."""
    if parts.cache_key is None or is_made(parts):
        return 0.0
    dtype = autocast_dtype(parts.precision)
    return parts.cache_key.views / len(images) * _shortest(lambda: teacher_embedding(parts.teacher, images, dtype), parts)


def _shortest(work: Callable[[], object], parts: Parts) -> float:
    """Seconds that some work takes, after a first time that warms up."""
    shortest = float("inf")
    for _ in range(1 + MEASURED_STEPS):
        start = time.perf_counter()
        work()
        if parts.device.type == "cuda":
            torch.cuda.synchronize(parts.device)
        shortest = min(shortest, time.perf_counter() - start)
    return shortest
