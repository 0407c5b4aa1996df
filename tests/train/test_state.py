import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from sparseformers.train import BootstrapConfig, bootstrap, resume
from sparseformers.train.checkpoint import Snapshot
from sparseformers.train.state import random_state, random_state_in, random_state_of
from tests.train.runs import at_each_step

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


def test_bootstrap__nothing_depends_on_the_global_generators(
    shared_settings: BootstrapConfig, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_each_step(monkeypatch, lambda *_: draw())
    draw()
    bootstrap(shared_settings, tmp_path / "disturbed")
    assert (tmp_path / "disturbed" / "model.safetensors").read_bytes() == (whole_run / "model.safetensors").read_bytes()


def test_resume__goes_on_with_the_generators_of_the_checkpoint(stopped_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = json.loads((stopped_run / "checkpoints" / "step-00000005" / "state.json").read_text())["random"]
    met: list[object] = []
    at_each_step(monkeypatch, lambda *_: met.append(random_state(CPU)))
    draw()
    resume(stopped_run)
    assert json.loads(json.dumps(met)) == saved


def test_random_state_in__of_a_process_that_there_was_not() -> None:
    snapshot = Snapshot({"random": [{"torch": "00"}, {"torch": "01"}]}, {})
    assert [random_state_in(snapshot, process) for process in range(3)] == [{"torch": "00"}, {"torch": "01"}, None]
