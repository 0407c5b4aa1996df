"""Whole runs with options that are off by default."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sparseformers
from sparseformers.train import BootstrapConfig, bootstrap
from tests.train.runs import changed, entries, tiny_settings


@pytest.fixture
def settings(tmp_path: Path) -> BootstrapConfig:
    return tiny_settings(tmp_path)


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
