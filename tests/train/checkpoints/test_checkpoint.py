"""One checkpoint: whole, or not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sparseformers.errors import RunError
from sparseformers.train import checkpoint
from sparseformers.train.checkpoint import Snapshot, fault_of, read_checkpoint, step_name, write_checkpoint
from tests.train.runs import flip


def snapshot(value: float = 1.0) -> Snapshot:
    return Snapshot({"training": {"samples": 12}}, {"student": {"weight": torch.full((50,), value)}, "optimiser": {}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints" / "step-00000003"
    write_checkpoint(folder, snapshot())
    return folder


def test_read_checkpoint__gives_back_what_was_written(folder: Path) -> None:
    state, tensors = read_checkpoint(folder)
    assert state == {"training": {"samples": 12}}
    assert tensors["student"]["weight"].tolist() == [1.0] * 50
    assert fault_of(folder) is None
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


def test_write_checkpoint__replaces_one_that_is_there(folder: Path) -> None:
    flip(folder / "state.json", 3)
    write_checkpoint(folder, snapshot(2.0))
    assert read_checkpoint(folder).tensors["student"]["weight"].tolist() == [2.0] * 50
    assert {path.name for path in folder.parent.iterdir()} == {"step-00000003"}


def test_read_checkpoint__of_a_later_format(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(RunError, match="has format 2, and this version reads format 1") as caught:
        read_checkpoint(folder)
    assert "version of sparseformers" in caught.value.remedy


@pytest.mark.parametrize(
    ("samples", "name"), [(0, "step-00000000"), (4, "step-00000001"), (2000, "step-00000500"), (10, "step-00000003")]
)
def test_step_name__counts_a_short_last_step(samples: int, name: str) -> None:
    assert step_name(samples, 4) == name
