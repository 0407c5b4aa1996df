"""One checkpoint: whole, or not there."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sparseformers.errors import RunError
from sparseformers.train import checkpoint
from sparseformers.train.checkpoint import (
    HostMemory,
    Snapshot,
    fault_of,
    pack,
    read_checkpoint,
    step_name,
    unpack,
    write_checkpoint,
)
from tests.refusals import refused
from tests.train.runs import flip


def snapshot(value: float = 1.0) -> Snapshot:
    return Snapshot({"training": {"samples": 12}}, {"student": {"weight": torch.full((50,), value)}, "optimiser": {}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints" / "step-00000003"
    write_checkpoint(folder, snapshot())
    return folder


def test_read_checkpoint__gives_back_what_was_written_last(folder: Path) -> None:
    state, tensors = read_checkpoint(folder)
    assert state == {"training": {"samples": 12}}
    assert tensors["student"]["weight"].tolist() == [1.0] * 50
    assert fault_of(folder) is None
    assert {path.name for path in folder.parent.iterdir()} == {"step-00000003"}
    flip(folder / "state.json", 3)
    write_checkpoint(folder, snapshot(2.0))
    assert read_checkpoint(folder).tensors["student"]["weight"].tolist() == [2.0] * 50
    assert {path.name for path in folder.parent.iterdir()} == {"step-00000003"}


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda folder: flip(folder / "student.safetensors", -7), "student.safetensors holds other bytes than were written"),
        (lambda folder: flip(folder / "state.json", 3), "state.json holds other bytes"),
        (lambda folder: (folder / "state.json").write_text("{}"), "state.json has 2 bytes instead of"),
        (lambda folder: (folder / "optimiser.safetensors").unlink(), "optimiser.safetensors is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text('{"format": 1, "fil'), "its manifest.json cannot be used"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "its manifest.json cannot be used"),
        (lambda folder: (folder / "manifest.json").write_text('{"format": 1, "files": {}}'), "its manifest.json is incomplete"),
    ],
)
def test_fault_of__names_the_damage(folder: Path, damage: Callable[[Path], object], fault: str) -> None:
    damage(folder)
    assert fault in (fault_of(folder) or "")


def test_fault_of__any_flipped_byte_is_found(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "manifest.json":
            for place in range(0, path.stat().st_size, 37):
                flip(path, place)
                assert fault_of(folder) is not None, (path.name, place)
                flip(path, place)
    assert fault_of(folder) is None


def test_write_checkpoint__that_fails_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "sha256_of", fail)
    for name in ("step-00000003", "step-00000004"):
        with pytest.raises(OSError, match="No space left"):
            write_checkpoint(folder.with_name(name), snapshot(2.0))
    monkeypatch.undo()
    assert {path.name for path in folder.parent.iterdir()} == {"step-00000003"}
    assert fault_of(folder) is None


def test_read_checkpoint__of_a_later_format(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with refused(RunError, "has format 2, and this version reads format 1", "version of sparseformers"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("samples", "name"), [(0, "step-00000000"), (4, "step-00000001"), (2000, "step-00000500"), (10, "step-00000003")]
)
def test_step_name__counts_a_short_last_step(samples: int, name: str) -> None:
    assert step_name(samples, 4) == name


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


def test_copy__outlives_changes_and_uses_its_memory_again() -> None:
    memory, weight = HostMemory(), torch.arange(6.0).reshape(2, 3).t()
    first = memory.copy({"student": {"weight": weight}})["student"]["weight"]
    weight.add_(1)
    assert first.is_contiguous()
    assert first.tolist() == [[0, 3], [1, 4], [2, 5]]
    second = memory.copy({"student": {"weight": weight}})["student"]["weight"]
    assert second.data_ptr() == first.data_ptr()
    assert second.tolist() == weight.tolist()
