"""The figures of a training as it goes: meters, the lines of ``metrics.jsonl``, and trackers beside them.

Trackers are TensorBoard, Weights & Biases and trackio, by way of accelerate. They never stop a training: one that fails, for want
of a network for example, is left out from there on, and the log says so.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import torch
from accelerate.tracking import GeneralTracker
from torch import Tensor

from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.files import write_json
from sparseformers.settings import to_dict
from sparseformers.train.callbacks import Callback
from sparseformers.train.held_out import HeldOut, Measurement
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.settings import BootstrapConfig
from sparseformers.train.state import TrainingState

LOGGER = logging.getLogger("sparseformers")


class Meters:
    """Loss, gradient norms, images a second and the share of time spent waiting for data, since the last reading.

    Readings come every so many steps and not seconds, so that a run that was stopped and resumed has the same; figures are summed
    in the host's memory, and the peak memory is that of ``device``.
    """

    def __init__(self, device: torch.device, *, every: int = 10) -> None:
        self.device, self.every = device, every
        self.images = self.non_finite = self.overflows = 0
        self._clear()

    def _clear(self) -> None:
        self._loss, self._norm = torch.zeros(()), torch.zeros(())
        self._norms: dict[str, Tensor] = {}
        self._steps = self._images = 0
        self._waited, self._since = 0.0, time.perf_counter()

    def waited(self, seconds: float) -> None:
        self._waited += seconds

    def step(self, loss: Tensor, norm: Tensor | None, images: int, *, norms: Mapping[str, Tensor] | None = None) -> None:
        """Adds a step on ``images`` of all processes, with the norm of the gradient before clipping, also by group."""
        self._loss += loss.detach()
        if norm is not None:
            self._norm += norm.detach()
        for name, value in (norms or {}).items():
            self._norms[name] = self._norms.get(name, torch.zeros(())) + value.detach()
        self._steps += 1
        self._images, self.images = self._images + images, self.images + images

    def skipped(self, images: int, *, overflow: bool) -> None:
        """Adds a step that was skipped: it takes time and images, but has no loss. An overflow is float16's scaler at work."""
        self.overflows += overflow
        self.non_finite += not overflow
        self._images, self.images = self._images + images, self.images + images

    def due(self) -> bool:
        return self._steps >= self.every

    def read(self) -> dict[str, float]:
        """The figures since the last reading, and how many steps were skipped so far; starts over."""
        elapsed = time.perf_counter() - self._since
        figures = {
            "loss": round(float(self._loss) / self._steps, 7),
            "gradient_norm": round(float(self._norm) / self._steps, 4),
            **{f"gradient_norm_{name}": round(float(value) / self._steps, 4) for name, value in self._norms.items()},
            "images_per_second": round(self._images / elapsed, 2),
            "data_wait": round(self._waited / elapsed, 4),
            "peak_memory_gib": round(peak_memory(self.device) / 2**30, 2),
            "non_finite_steps": self.non_finite,
            "overflow_steps": self.overflows,
        }
        self._clear()
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Sums since the last reading, without times: a resumed run goes on summing."""
        return {
            "loss": float(self._loss),
            "norm": float(self._norm),
            "norms": {name: float(value) for name, value in self._norms.items()},
            "steps": self._steps,
            "images": self._images,
            "non_finite": self.non_finite,
            "overflows": self.overflows,
            "total_images": self.images,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._loss, self._norm = torch.tensor(state["loss"]), torch.tensor(state["norm"])
        self._norms = {name: torch.tensor(value) for name, value in state["norms"].items()}
        self._steps, self._images = int(state["steps"]), int(state["images"])
        counts = (int(state[name]) for name in ("total_images", "non_finite", "overflows"))
        self.images, self.non_finite, self.overflows = counts


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: on the accelerator, or by this process and its largest data worker."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def chosen_trackers(asked: Sequence[str]) -> tuple[str, ...]:
    """Resolves ``--trackers`` on this machine, before anything is loaded.

    Raises MissingExtraError for one that is named and not installed, and ConfigError for ``none`` or ``auto`` beside others.
    """
    if alone := [name for name in asked if name in ("none", "auto")]:
        if len(asked) > 1:
            problem = f"--trackers {' '.join(asked)} is at odds with itself."
            raise ConfigError(problem, f"Give '{alone[0]}' alone, or leave it out.")
        return ("tensorboard",) if alone == ["auto"] and find_spec("tensorboard") else ()
    for name in asked:
        if find_spec(name) is None:
            raise MissingExtraError.for_package(name, name)
    return tuple(dict.fromkeys(asked))


class Trackers:
    """The trackers of one run, in whose folder some keep files; one that is resumed after ``samples`` images goes on in them."""

    def __init__(self, settings: BootstrapConfig, run: RunFolder, *, samples: int) -> None:
        self._open: dict[str, GeneralTracker] = {}
        for name in chosen_trackers(settings.run.trackers):
            self._guarded(name, lambda name=name: self._start(name, settings, run, samples))  # type: ignore[misc]

    def log(self, kind: str, figures: Mapping[str, Any], samples: int) -> None:
        """Passes numbers on as ``kind/name``, at the step ``samples``."""
        values = {f"{kind}/{name}": value for name, value in figures.items() if isinstance(value, int | float)}
        for name, tracker in list(self._open.items()):
            self._guarded(name, lambda tracker=tracker: tracker.log(values, step=samples))  # type: ignore[misc]

    def close(self) -> None:
        for name, tracker in list(self._open.items()):
            self._guarded(name, tracker.finish)
        self._open.clear()

    def _start(self, name: str, settings: BootstrapConfig, run: RunFolder, samples: int) -> None:
        tracker = _make_tracker(name, settings, run, samples)
        tracker.start()
        self._open[name] = tracker
        if name == "tensorboard" and not samples:
            tracker.log({"settings": f"```json\n{json.dumps(to_dict(settings), indent=2)}\n```"}, step=0)

    def _guarded(self, name: str, work: Callable[[], object]) -> None:
        """Does something with a tracker, and leaves the tracker out if that fails."""
        try:
            work()
        except Exception as error:  # whatever a network, a server or a full disk leads its library to
            self._open.pop(name, None)
            LOGGER.warning("the training goes on without %s: %s: %s", name, type(error).__name__, error)


class MetricsLog(Callback):
    """Writes the figures of a training to ``metrics.jsonl``, and passes them on to its trackers."""

    def __init__(self, run: RunFolder, settings: BootstrapConfig) -> None:
        self.run, self.settings = run, settings
        self.trackers: Trackers | None = None

    def on_start(self, state: TrainingState) -> None:
        self.trackers = Trackers(self.settings, self.run, samples=state.samples)

    def on_step(self, state: TrainingState, figures: Mapping[str, float] | None) -> None:
        if figures is not None:
            self._append("train", state, figures)

    def on_measured(self, state: TrainingState, held_out: HeldOut, measurement: Measurement) -> None:
        drift = {} if measurement.followed is None else asdict(measurement.followed.drift)
        rois = {f"roi_{name}": round(value, 5) for name, value in drift.items()}
        maps = {} if measurement.map is None else {f"map_{name}": value for name, value in asdict(measurement.map).items()}
        dense = {} if measurement.dense_cosine is None else {"dense_cosine": measurement.dense_cosine}
        self._append("held_out", state, {**asdict(measurement.alignment), **rois, **maps, **dense})
        LOGGER.info("%d images: held-out centred cosine %.4f", state.samples, measurement.alignment.centred_cosine)

    def on_stop(self, error: BaseException | None) -> None:
        if self.trackers is not None:
            self.trackers.close()

    def _append(self, kind: str, state: TrainingState, figures: Mapping[str, float]) -> None:
        self.run.append_metrics({"kind": kind, "samples": state.samples, "seconds": round(state.seconds, 1), **figures})
        if self.trackers is not None:
            self.trackers.log(kind, figures, state.samples)


def _make_tracker(name: str, settings: BootstrapConfig, run: RunFolder, samples: int) -> GeneralTracker:
    from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

    if name == "tensorboard":
        # What a stopped run wrote after its checkpoint is measured again.
        return TensorBoardTracker("", run.path / "tensorboard", purge_step=samples + 1 if samples else None)
    # The run's name at trackers that know many: made once, so that a resumed run finds itself.
    title, named = run.path.absolute().name, run.path / "tracker.json"
    if not named.is_file():
        write_json(named, {"id": uuid.uuid4().hex[:8]})
    identity = str(json.loads(named.read_text(encoding="utf-8"))["id"])
    project, common = settings.run.tracker_project, {"resume": "allow", "config": to_dict(settings)}
    if name == "wandb":
        quiet = {"console": "off"}  # the log and the bar are ours
        return WandBTracker(project, id=identity, name=title, dir=str(run.path), settings=quiet, **common)
    return TrackioTracker(project, name=f"{title}-{identity}", **common)
