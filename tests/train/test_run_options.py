"""Whole runs with the options that are off by default: an average of the weights, layer-wise decay, other crops."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sparseformers
from sparseformers.evaluation import Alignment
from sparseformers.train import BootstrapConfig, bootstrap
from sparseformers.train.held_out import HeldOut
from sparseformers.train.metrics import Meters
from tests.train.runs import changed, entries, last_checkpoint, tiny_settings


@pytest.fixture
def settings(tmp_path: Path) -> BootstrapConfig:
    return tiny_settings(tmp_path)


def test_bootstrap__with_an_average_measures_and_saves_it_and_learns_as_without(
    settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[dict[str, torch.Tensor]] = []
    original = HeldOut.measure

    def record(self: HeldOut, student: torch.nn.Module) -> Alignment:
        measured.append({name: value.clone() for name, value in student.state_dict().items()})
        return original(self, student)

    monkeypatch.setattr(HeldOut, "measure", record)
    bootstrap(changed(settings, warm_up=0.0), tmp_path / "plain")
    newest = measured.copy()
    measured.clear()
    bootstrap(changed(settings, warm_up=0.0, ema=0.9), tmp_path / "averaged")
    checkpoint = last_checkpoint(tmp_path / "averaged")
    saved = sparseformers.load(tmp_path / "averaged").state_dict()
    assert len(newest) == len(measured) == 4
    for name in saved:
        assert torch.equal(checkpoint["student"][name], newest[-1][name]), name  # the average does not disturb the training
        assert torch.equal(saved[name], measured[-1][name]), name
        learns = name in checkpoint["average"]["weights"]
        assert torch.equal(saved[name], newest[-1][name]) != learns or torch.equal(newest[0][name], newest[-1][name]), name
        if learns:
            assert torch.equal(saved[name], checkpoint["average"]["weights"][name]), name
    assert checkpoint["average"]["steps"] == 6
    assert not torch.equal(saved["focusing.widen.weight"], newest[-1]["focusing.widen.weight"])


def test_bootstrap__layer_decay_names_the_rates_in_the_metrics(
    settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Meters, "due", lambda _: True)
    bootstrap(changed(settings, front="grid", tune=2, layer_decay=0.5, lr=1e-4, samples=8), tmp_path / "run")
    rates = {key: value for key, value in entries(tmp_path / "run", "train")[0].items() if key.startswith("lr_")}
    assert set(rates) == {"lr_tuned_embedding", "lr_tuned_block_0", "lr_tuned_block_1"}
    assert rates["lr_tuned_block_1"] == 2 * rates["lr_tuned_block_0"] == 4 * rates["lr_tuned_embedding"] > 0


def test_bootstrap__crop_scale_changes_what_is_learnt_from_and_not_what_is_measured_on(
    settings: BootstrapConfig, tmp_path: Path
) -> None:
    bootstrap(changed(settings, samples=4), tmp_path / "run")
    bootstrap(changed(settings, samples=4, crop_scale=0.25), tmp_path / "same")
    bootstrap(changed(settings, samples=4, crop_scale=0.9), tmp_path / "other")
    run, same, other = (sparseformers.load(tmp_path / name).state_dict() for name in ("run", "same", "other"))
    assert all(torch.equal(run[name], same[name]) for name in run)
    assert not torch.equal(run["focusing.widen.weight"], other["focusing.widen.weight"])
    assert (
        entries(tmp_path / "run", "held_out")[0]["centred_cosine"] == entries(tmp_path / "other", "held_out")[0]["centred_cosine"]
    )
