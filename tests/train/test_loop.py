"""The loop: what hangs on it is called in its order, and steps follow the schedule."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from sparseformers.processes import make_accelerator
from sparseformers.train import BootstrapConfig, RunFolder
from sparseformers.train.callbacks import Callback, attached
from sparseformers.train.held_out import HeldOut, Measurement
from sparseformers.train.loop import Trainer
from sparseformers.train.processes import StopSignals
from sparseformers.train.setup import gather_parts
from sparseformers.train.state import TrainingState


class Notes(Callback):
    """Notes what it is told, with the images seen by then."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []
        self.figures: list[Mapping[str, float]] = []
        self.measured: list[Measurement] = []
        self.ended_by: list[BaseException | None] = []

    def on_start(self, state: TrainingState) -> None:
        self.heard.append(("start", state.samples))

    def on_step(self, state: TrainingState, figures: Mapping[str, float] | None) -> None:
        self.heard.append(("step", state.samples))
        self.figures += [] if figures is None else [figures]

    def on_measured(self, state: TrainingState, held_out: HeldOut, measurement: Measurement) -> None:
        self.heard.append(("measured", state.samples))
        self.measured.append(measurement)

    def on_checkpoint(self, state: TrainingState) -> None:
        self.heard.append(("checkpoint", state.samples))

    def on_stop(self, error: BaseException | None) -> None:
        self.ended_by.append(error)


def trained(settings: BootstrapConfig, folder: Path, notes: Callback) -> Trainer:
    """A training without a command around it."""
    folder.mkdir()
    trainer = Trainer(gather_parts(settings, device=torch.device("cpu")), RunFolder(folder), make_accelerator())
    with trainer.checkpointer:
        trainer.train([notes], StopSignals(speaks=False))
    return trainer


def test_train__calls_what_hangs_on_it_in_the_order_of_events(shared_settings: BootstrapConfig, tmp_path: Path) -> None:
    notes = Notes()
    trainer = trained(
        shared_settings.with_(samples=10, evaluations=1, log_every=2, checkpoint_every="2steps"), tmp_path / "run", notes
    )
    assert notes.heard == [
        *(("start", 0), ("measured", 0), ("step", 4), ("step", 8), ("checkpoint", 8)),
        *(("step", 10), ("measured", 10), ("checkpoint", 10)),
    ]
    (figures,) = notes.figures
    assert {"loss", "gradient_norm", "images_per_second", "data_wait", "lr_tuned"} <= figures.keys()
    assert trainer.state.alignment == notes.measured[-1].alignment
    assert (trainer.state.samples, trainer.state.progress, trainer.state.evaluations) == (10, 1.0, 2)


def test_train__budget_on_the_clock_ends_with_a_measurement(shared_settings: BootstrapConfig, tmp_path: Path) -> None:
    notes = Notes()
    trainer = trained(shared_settings.with_(samples=None, minutes=0.01, evaluations=1), tmp_path / "run", notes)
    assert trainer.state.seconds >= 0.6
    assert notes.heard[-2:] == [("measured", trainer.state.samples), ("checkpoint", trainer.state.samples)]


def test_attached__every_callback_hears_of_the_end_and_its_reason() -> None:
    first, second = Notes(), Notes()
    with attached([first, second]):
        pass
    with pytest.raises(KeyError) as caught, attached([first, second]):
        raise KeyError("gone")
    assert first.ended_by == second.ended_by == [None, caught.value]
