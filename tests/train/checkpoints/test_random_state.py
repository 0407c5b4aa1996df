from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sparseformers.data import Batch
from sparseformers.train import bootstrap, resume
from sparseformers.train.checkpoint import Snapshot
from sparseformers.train.state import random_state, random_state_in, random_state_of
from sparseformers.train.step import StepFigures, TrainingStep
from tests.train.runs import changed, each_checkpoint_awaited, tiny_settings

CPU = torch.device("cpu")


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))]  # noqa: NPY002


def test_random_state_of__goes_on_from_there_and_leaves_no_trace() -> None:
    draw()
    state = json.loads(json.dumps(random_state(CPU)))
    first = draw()
    outside = random_state(CPU)
    with random_state_of(state, CPU):
        assert draw() == first
    assert random_state(CPU) == outside
    with random_state_of(None, CPU):
        assert random_state(CPU) == outside


def test_bootstrap__nothing_depends_on_the_global_generators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings(tmp_path)
    bootstrap(settings, tmp_path / "run")
    original = TrainingStep.__call__

    def disturbed(self: TrainingStep, batch: Batch, *, rate: float, samples: int, progress: float) -> StepFigures | None:
        draw()
        return original(self, batch, rate=rate, samples=samples, progress=progress)

    monkeypatch.setattr(TrainingStep, "__call__", disturbed)
    draw()
    bootstrap(settings, tmp_path / "disturbed")
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "disturbed"))
    assert first == second


def test_resume__goes_on_with_the_generators_of_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with each_checkpoint_awaited():
        bootstrap(changed(tiny_settings(tmp_path), checkpoint_every="1step"), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000006")
    (tmp_path / "run" / "README.md").unlink()
    saved = json.loads((tmp_path / "run" / "checkpoints" / "step-00000005" / "state.json").read_text())["random"]
    original, met = TrainingStep.__call__, []

    def noting(self: TrainingStep, batch: Batch, *, rate: float, samples: int, progress: float) -> StepFigures | None:
        met.append(random_state(CPU))
        return original(self, batch, rate=rate, samples=samples, progress=progress)

    monkeypatch.setattr(TrainingStep, "__call__", noting)
    draw()
    resume(tmp_path / "run")
    assert json.loads(json.dumps(met)) == saved


def test_random_state_in__of_a_process_that_there_was_not() -> None:
    snapshot = Snapshot({"random": [{"torch": "00"}, {"torch": "01"}]}, {})
    assert [random_state_in(snapshot, process) for process in range(3)] == [{"torch": "00"}, {"torch": "01"}, None]
