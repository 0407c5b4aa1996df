"""What a training writes down as it goes: the meters, the held-out figures, the bar."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict

import torch

from sparseformers.evaluation import Alignment, Drift
from sparseformers.train.checkpoints.state import TrainingState
from sparseformers.train.metrics import Meters, Trackers
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.status import Heartbeat
from sparseformers.train.summary import TrainingProgress

LOGGER = logging.getLogger("sparseformers")


class Reporter:
    """Writes to ``metrics.jsonl``, trackers, the log and the bar; only the main process has one that writes.

    Args:
        run: where to write.
        meters: of this process.
        progress_bar: to draw.
        trackers: to pass figures on to.
        heartbeat: to tell how far the training is.
        writes: whether this is the main process.
    """

    def __init__(
        self,
        run: RunFolder,
        meters: Meters,
        progress_bar: TrainingProgress,
        trackers: Trackers,
        heartbeat: Heartbeat,
        *,
        writes: bool,
    ) -> None:
        self.run, self.meters, self.progress_bar, self.writes = run, meters, progress_bar, writes
        self.trackers, self.heartbeat = trackers, heartbeat

    def step(self, state: TrainingState, progress: float, optimiser: torch.optim.Optimizer) -> None:
        """The place in the training to the bar; now and then the meters to it and to ``metrics.jsonl``."""
        self.progress_bar.move(progress)
        self.heartbeat.tell(state, progress)
        if not self.meters.due():
            return
        figures = self.meters.read()
        if self.writes:
            rates = {f"lr_{group['name']}": group["lr"] for group in optimiser.param_groups}
            self._append("train", state, {**figures, **rates})
            self.progress_bar.step(
                progress,
                loss=figures["loss"],
                images_per_second=figures["images_per_second"],
                data_wait=figures["data_wait"],
            )

    def measured(self, state: TrainingState, progress: float, alignment: Alignment, drift: Drift) -> None:
        """A measurement on the held-out images."""
        if self.writes:
            rois = {f"roi_{name}": round(value, 5) for name, value in asdict(drift).items()}
            self._append("held_out", state, {**asdict(alignment), **rois})
            self.progress_bar.measured(progress, state.samples, alignment)
            LOGGER.info("%d images: held-out centred cosine %.4f", state.samples, alignment.centred_cosine)

    def _append(self, kind: str, state: TrainingState, figures: Mapping[str, float]) -> None:
        self.run.append_metrics({"kind": kind, "samples": state.samples, "seconds": round(state.seconds, 1), **figures})
        self.trackers.log(kind, figures, state.samples)
