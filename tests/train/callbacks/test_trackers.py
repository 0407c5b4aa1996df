"""Where figures go beside metrics.jsonl: real TensorBoard and offline Weights & Biases, and trackers that fail."""

import json
import sys
from pathlib import Path

import pytest
from accelerate import tracking
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.train import BootstrapConfig, RunFolder, bootstrap, resume
from sparseformers.train.callbacks import metrics
from sparseformers.train.callbacks.metrics import Trackers, chosen_trackers
from tests.refusals import refused
from tests.train.runs import entries


@pytest.fixture
def settings(shared_settings: BootstrapConfig) -> BootstrapConfig:
    return shared_settings.with_(samples=8, log_every=1, evaluations=1)


class _Broken:
    """A tracker whose network is gone."""

    def __init__(self, *_given: object, **_named: object) -> None:
        self.logged = 0

    def start(self) -> None:
        pass

    def log(self, _values: dict[str, float], step: int) -> None:
        self.logged += 1
        raise ConnectionError(f"no route to the tracker at step {step}")

    def finish(self) -> None:
        raise ConnectionError("no route to the tracker")


def test_chosen_trackers__are_installed(monkeypatch: pytest.MonkeyPatch, settings: BootstrapConfig, tmp_path: Path) -> None:
    assert chosen_trackers(("auto",)) == ("tensorboard",)
    assert chosen_trackers(("none",)) == chosen_trackers(()) == ()
    assert chosen_trackers(("wandb", "tensorboard", "wandb")) == ("wandb", "tensorboard")
    monkeypatch.setattr(metrics, "find_spec", lambda _name: None)
    assert chosen_trackers(("auto",)) == ()
    with refused(MissingExtraError, "'wandb' is not installed", "sparseformers[wandb]"):
        chosen_trackers(("wandb",))
    with pytest.raises(ConfigError, match="at odds with itself"):
        chosen_trackers(("none", "wandb"))
    with pytest.raises(MissingExtraError):
        bootstrap(settings.with_(trackers=("trackio",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tensorboard__has_the_figures_of_the_metrics_and_goes_on_when_resumed(settings: BootstrapConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    bootstrap(settings.with_(trackers=("auto",)), run)
    resume(run)
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert [(event.step, round(event.value, 5)) for event in board.Scalars("train/loss")] == [
        (line["samples"], pytest.approx(line["loss"], abs=1e-5)) for line in entries(run, "train")
    ]
    held_out = [event.value for event in board.Scalars("held_out/centred_cosine")]
    assert held_out == pytest.approx([line["centred_cosine"] for line in entries(run, "held_out")], abs=1e-5)
    assert "held_out/cosine_median" in board.Tags()["scalars"]
    assert "settings/text_summary" in board.Tags()["tensors"]


def test_tensorboard__forgets_what_a_stopped_run_wrote_after_its_checkpoint(settings: BootstrapConfig, tmp_path: Path) -> None:
    settings, run = settings.with_(trackers=("tensorboard",)), RunFolder(tmp_path)
    for samples, logged in ((0, {4: 1.0, 8: 2.0, 12: 3.0}), (8, {12: 5.0})):
        opened = Trackers(settings, run, samples=samples)
        for step, loss in logged.items():
            opened.log("train", {"loss": loss}, step)
        opened.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(4, 1.0), (8, 2.0), (12, 5.0)]


def test_trackers__that_fail_stop_nothing(settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = _Broken()
    monkeypatch.setattr(tracking, "WandBTracker", lambda *_given, **_named: broken)
    summary = bootstrap(settings.with_(trackers=("wandb",)), tmp_path / "run")
    assert summary.samples == 8
    assert broken.logged == 1
    assert "goes on without wandb: ConnectionError: no route to the tracker at step 0" in (tmp_path / "run/train.log").read_text()


@pytest.mark.slow
def test_wandb__keeps_one_run_when_resumed(settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    bootstrap(settings.with_(trackers=("wandb",)), run)
    resume(run)
    identity = json.loads((run / "tracker.json").read_text())["id"]
    files = list((run / "wandb").glob("offline-run-*/run-*.wandb"))
    assert files
    assert all(file.name == f"run-{identity}.wandb" for file in files)
    assert "goes on without" not in (run / "train.log").read_text()
    assert "wandb" in sys.modules
