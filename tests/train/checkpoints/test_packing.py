from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from sparseformers.train.checkpoint import HostMemory, pack, unpack


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


def test_unpack__keeps_kinds_that_json_has_not() -> None:
    state = {"t": (1, (2.5, None)), "by number": {3: "a", 4: [True]}, "$marked": {"$tensor": "no tensor"}, "inf": float("inf")}
    assert unpack(json.loads(json.dumps(pack(state, {}))), {}) == state


def test_pack__names_what_it_cannot_hold() -> None:
    with pytest.raises(TypeError, match=r"'scaler\.growth' is a ndarray"):
        pack({"scaler": {"growth": np.ones(2)}}, {})


def test_copy__outlives_changes_and_uses_its_memory_again() -> None:
    memory, weight = HostMemory(), torch.arange(6.0).reshape(2, 3).t()
    first = memory.copy({"student": {"weight": weight}})["student"]["weight"]
    weight.add_(1)
    assert first.is_contiguous()
    assert first.tolist() == [[0, 3], [1, 4], [2, 5]]
    second = memory.copy({"student": {"weight": weight}})["student"]["weight"]
    assert second.data_ptr() == first.data_ptr()
    assert second.tolist() == weight.tolist()
