"""Settings of whole runs on the CPU, and what they write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sparseformers.train import BootstrapConfig, RunFolder
from sparseformers.train.checkpoint import read_checkpoint, unpack
from sparseformers.train.checkpointer import Writing
from tests.tiny import SIDE, write_images, write_teacher


def tiny_settings(tmp_path: Path, *, photographs: int = 12) -> BootstrapConfig:
    """Of a run of six steps, with its teacher and photographs in ``tmp_path``."""
    write_images(tmp_path / "photos", photographs)
    return BootstrapConfig.of(
        teacher=write_teacher(tmp_path / "teacher.safetensors"),
        data=(tmp_path / "photos",),
        image_size=SIDE,
        lr=1e-4,
        batch_size=4,
        samples=24,
        holdout=0.25,
        evaluations=3,
        precision="fp32",
        trackers=("none",),
        workers=0,
    )


def focusing(settings: BootstrapConfig) -> BootstrapConfig:
    """The same with the paper's front, small."""
    paper: dict[str, object] = {"front": "focusing", "lr": 1e-3, "tuned_lr_ratio": 0.1}
    return settings.with_(focusing_width=64, channels=8, points=4, **paper)


def changed(settings: BootstrapConfig, **options: object) -> BootstrapConfig:
    """The settings with some of them changed."""
    return settings.with_(**options)


def entries(folder: Path, kind: str) -> list[dict[str, float]]:
    """The lines of a kind in a run's metrics."""
    return [entry for entry in RunFolder(folder).read_metrics() if entry["kind"] == kind]


@contextmanager
def each_checkpoint_awaited() -> Iterator[None]:
    """Within it a checkpoint that is due is written even if the one before takes long."""

    def not_busy(self: Writing) -> bool:
        self.wait()
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writing, "is_busy", property(not_busy))
        yield


def last_checkpoint(folder: Path) -> dict[str, Any]:
    """The states of the parts of a run's newest checkpoint, by name."""
    snapshot = read_checkpoint(RunFolder(folder).checkpoint_folders()[-1])
    return {name: unpack(state, snapshot.tensors.get(name, {})) for name, state in snapshot.state["parts"].items()}
