"""A rehearsal of a training: a few real steps on this machine, timed. What imports PyTorch is imported where it is used."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sparseformers.train.callbacks import Callback
from sparseformers.train.lengths import Budget

if TYPE_CHECKING:
    from sparseformers.train.held_out import HeldOut, Measurement
    from sparseformers.train.setup import Parts
    from sparseformers.train.state import TrainingState
    from sparseformers.train.view_cache import CacheKey, ViewCache

FEWEST_STEPS = 3  # that are timed however long they take


@dataclass(frozen=True)
class Rehearsal:
    """Times of one device of this machine, in seconds, and its memory."""

    step: float  # mean, waiting for images included
    data_wait: float  # share of a step spent waiting for images, in [0, 1]
    measuring_image: float  # length of a held-out measurement for each of its images
    saving: float  # length of writing the model
    memory_gib: float  # peak; reading images adds some hundred megabytes a worker


def rehearse(parts: Parts, *, devices: int, seconds: float, folder: Path) -> Rehearsal:
    """Trains for some seconds, by the loop that trains in earnest, as one of several devices would; the student is used up."""
    from sparseformers.data.loading import BATCHES_AHEAD
    from sparseformers.processes import make_accelerator
    from sparseformers.saving import save
    from sparseformers.train.callbacks.metrics import peak_memory
    from sparseformers.train.loop import Trainer
    from sparseformers.train.processes import StopSignals
    from sparseformers.train.run_folder import RunFolder
    from sparseformers.train.setup import thin

    settings, batch = parts.settings, parts.settings.optimisation.batch_size // devices
    # What reading processes have made before the first step must not count as if it came for nothing.
    warm_up = 1 + parts.workers * BATCHES_AHEAD
    short = settings.with_(batch_size=batch, evaluations=1, log_every=1, checkpoint_every="1000000h", trackers=("none",))
    budget = _AtLeast(None, seconds, fewest=(warm_up + FEWEST_STEPS) * batch)
    held_out = thin(parts.held_out, 8 * batch)
    rehearsed = dataclasses.replace(parts, settings=short, held_out=held_out, budget=budget)
    folder.mkdir()
    run, stopwatch = RunFolder(folder), _Stopwatch()
    cache = None if parts.cache_key is None else _noise_for_views(parts.cache_key)
    trainer = Trainer(rehearsed, run, make_accelerator(), cache=cache)
    with trainer.checkpointer:
        trainer.train([stopwatch], StopSignals(speaks=False))
    begin = time.perf_counter()
    save(parts.inheritance.student, run.model, provenance=parts.inheritance.provenance)
    saving, steps = time.perf_counter() - begin, stopwatch.steps[warm_up:]
    total, waited = sum(length for length, _ in steps), sum(length * share for length, share in steps)
    measuring = stopwatch.measuring / len(held_out) / max(1, settings.data.eval_views)
    return Rehearsal(total / len(steps), waited / total, measuring, saving, peak_memory(parts.device) / 2**30)


@dataclass(frozen=True)
class _AtLeast(Budget):
    """Seconds to spend, and the fewest images to see in them."""

    fewest: int

    def progress(self, *, samples: float, seconds: float) -> float:
        return min(super().progress(samples=samples, seconds=seconds), samples / self.fewest)


class _Stopwatch(Callback):
    """Notes the length of each step with the share of it spent waiting for images, and the length of the last measurement."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []
        self.measuring, self._last = 0.0, time.perf_counter()

    def on_step(self, state: TrainingState, figures: Mapping[str, float] | None) -> None:
        now = time.perf_counter()
        if figures is not None:  # a step that was skipped has none
            self.steps.append((now - self._last, figures["data_wait"]))
        self._last = now

    def on_measured(self, state: TrainingState, held_out: HeldOut, measurement: Measurement) -> None:
        self.measuring = time.perf_counter() - self._last


def write_photographs(folder: Path, count: int = 32) -> Path:
    """Writes made-up photographs as large as ImageNet's: 500 x 375 pixels and some 110 kB each; returns their folder."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(count):
        pixels = noise.integers(0, 256, (150, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((500, 375)).save(folder / f"{number}.jpg", quality=85)
    return folder


def _noise_for_views(key: CacheKey) -> ViewCache:
    """A cache of noise in the place of the one that the training will make, or has made: bytes, or shares of sum 1."""
    from sparseformers.train.view_cache import EMBEDDINGS, IMAGES, MAPS, TOKENS, ViewCache

    noise, arrays = np.random.default_rng(0), {}
    for name, (kind, shape) in key.arrays.items():
        view = noise.random((1, 1, *shape[2:]))
        arrays[name] = np.broadcast_to((255 * view if kind == np.uint8 else view / view.sum()).astype(kind), shape)
    return ViewCache(Path(), arrays[IMAGES], arrays[EMBEDDINGS], {}, arrays.get(MAPS), arrays.get(TOKENS))
