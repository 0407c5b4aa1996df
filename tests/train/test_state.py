import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sparseformers.processes import make_accelerator
from sparseformers.train import BootstrapConfig, bootstrap, resume
from sparseformers.train.checkpoint import Snapshot
from sparseformers.train.state import pack, random_state, random_state_of, unpack
from tests.train.runs import at_each_step, weights

CPU = torch.device("cpu")


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))]  # noqa: NPY002


def test_random_state_of__goes_on_from_there_and_leaves_no_trace() -> None:
    draw()
    state, accelerator = json.loads(json.dumps(random_state(CPU))), make_accelerator()
    first = draw()
    outside = random_state(CPU)
    with random_state_of(Snapshot({"random": [state]}, {}), accelerator):
        assert draw() == first
    assert random_state(CPU) == outside
    for unknown in (None, Snapshot({"random": []}, {})):  # of a process that there was not
        with random_state_of(unknown, accelerator):
            assert random_state(CPU) == outside


def test_bootstrap__repeats_by_its_seed_alone(
    shared_settings: BootstrapConfig, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_each_step(monkeypatch, lambda *_: draw())
    draw()
    for name, changes in (("again", {"workers": 2}), ("other", {"seed": 1})):
        bootstrap(shared_settings.with_(**changes), tmp_path / name)
        assert (weights(tmp_path / name) == weights(whole_run)) == (name == "again")


def test_resume__goes_on_with_the_generators_of_the_checkpoint(stopped_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = json.loads((stopped_run / "checkpoints" / "step-00000005" / "state.json").read_text())["random"]
    met: list[object] = []
    at_each_step(monkeypatch, lambda *_: met.append(random_state(CPU)))
    draw()
    resume(stopped_run)
    assert json.loads(json.dumps(met)) == saved


def test_unpack__gives_a_state_back_as_it_was() -> None:
    student = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW([{"params": [student.weight], "name": "new"}, {"params": [student.bias], "lr": 0.1}])
    student(torch.rand(4, 3)).sum().backward()
    optimiser.step()
    tensors: dict[str, Tensor] = {}
    packed = json.loads(json.dumps(pack(optimiser.state_dict(), tensors)))
    fresh = torch.optim.AdamW([{"params": [student.weight], "name": ""}, {"params": [student.bias]}])
    fresh.load_state_dict(unpack(packed, tensors))
    before, after = optimiser.state_dict(), fresh.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert isinstance(after["param_groups"][0]["betas"], tuple)
    assert before["state"].keys() == after["state"].keys() == {0, 1}
    for index, values in before["state"].items():
        assert all(torch.equal(value, after["state"][index][name]) for name, value in values.items())


def test_unpack__keeps_kinds_that_json_has_not_and_pack_names_what_it_cannot_hold() -> None:
    state = {"t": (1, (2.5, None)), "by number": {3: "a", 4: [True]}, "$marked": {"$tensor": "no tensor"}, "inf": float("inf")}
    assert unpack(json.loads(json.dumps(pack(state, {}))), {}) == state
    with pytest.raises(TypeError, match=r"'scaler\.growth' is a ndarray"):
        pack({"scaler": {"growth": np.ones(2)}}, {})
