from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from sparseformers.bootstrap import bootstrap
from sparseformers.bootstrap.random_state import random_state, random_state_of
from sparseformers.bootstrap.step import StepFigures, TrainingStep
from sparseformers.data import Batch
from tests.bootstrap.runs import tiny_settings

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

    def disturbed(self: TrainingStep, batch: Batch, *, rate: float, samples: int) -> StepFigures:
        draw()
        return original(self, batch, rate=rate, samples=samples)

    monkeypatch.setattr(TrainingStep, "__call__", disturbed)
    draw()
    bootstrap(settings, tmp_path / "disturbed")
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "disturbed"))
    assert first == second
