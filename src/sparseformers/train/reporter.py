"""What a training writes down as it goes: the meters, the held-out figures, the bar."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict

from sparseformers.train.callbacks import Callback
from sparseformers.train.checkpoints.state import TrainingState
from sparseformers.train.held_out import HeldOut, Measurement
from sparseformers.train.metrics import Trackers
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.status import Heartbeat
from sparseformers.train.summary import TrainingProgress

LOGGER = logging.getLogger("sparseformers")


class Reporter(Callback):
    """Writes to ``metrics.jsonl``, trackers, the log and the bar.

    Args:
        run: where to write.
        progress_bar: to draw.
        trackers: to pass figures on to.
        heartbeat: to tell how far the training is.
    """

    def __init__(self, run: RunFolder, progress_bar: TrainingProgress, trackers: Trackers, heartbeat: Heartbeat) -> None:
        self.run, self.progress_bar, self.trackers, self.heartbeat = run, progress_bar, trackers, heartbeat

    def on_step(self, state: TrainingState, figures: Mapping[str, float] | None) -> None:
        self.progress_bar.move(state.progress)
        self.heartbeat.tell(state, state.progress)
        if figures is None:
            return
        self._append("train", state, figures)
        self.progress_bar.step(
            state.progress,
            loss=figures["loss"],
            images_per_second=figures["images_per_second"],
            data_wait=figures["data_wait"],
        )

    def on_measured(self, state: TrainingState, held_out: HeldOut, measurement: Measurement) -> None:
        alignment, followed = measurement.alignment, measurement.followed
        drift = {} if followed is None else asdict(followed.drift)
        rois = {f"roi_{name}": round(value, 5) for name, value in drift.items()}
        self._append("held_out", state, {**asdict(alignment), **rois})
        self.progress_bar.measured(state.progress, state.samples, alignment)
        LOGGER.info("%d images: held-out centred cosine %.4f", state.samples, alignment.centred_cosine)

    def _append(self, kind: str, state: TrainingState, figures: Mapping[str, float]) -> None:
        self.run.append_metrics({"kind": kind, "samples": state.samples, "seconds": round(state.seconds, 1), **figures})
        self.trackers.log(kind, figures, state.samples)
