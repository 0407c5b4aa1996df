"""Settings of whole runs on the CPU, and what they write."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from sparseformers.data import Batch
from sparseformers.train import BootstrapConfig, RunFolder
from sparseformers.train.checkpoint import Checkpointer
from sparseformers.train.step import StepFigures, TrainingStep
from tests.tiny import SIDE, write_images, write_teacher

TIMES = {"seconds", "images_per_second", "data_wait", "peak_memory_gib"}
FOCUSING = ("--front", "focusing", "--focusing-width", "64", "--channels", "8", "--points", "4", "--lr", "1e-3")
"""Options of a tiny front of the paper's."""


def tiny_settings(tmp_path: Path, *, photographs: int = 12) -> BootstrapConfig:
    """Of a run of six steps, with its teacher and photographs in ``tmp_path``."""
    write_images(tmp_path / "photos", photographs)
    return BootstrapConfig.of(
        teacher=write_teacher(tmp_path / "teacher.safetensors"),
        data=(tmp_path / "photos",),
        front="grid",  # whose runs take half of the time of the default's, which test_mixed.py has
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


def write_broken(folder: Path, count: int = 3) -> None:
    """Writes files that are no images among the photographs."""
    for number in range(count):
        (folder / f"broken_{number}.jpg").write_bytes(b"not an image")


def entries(folder: Path, kind: str) -> list[dict[str, float]]:
    """The lines of a kind in a run's metrics."""
    return [entry for entry in RunFolder(folder).read_metrics() if entry["kind"] == kind]


def at_each_step(
    patch: pytest.MonkeyPatch,
    before: Callable[[TrainingStep, Batch, int], object] = lambda *_: None,
    after: Callable[[TrainingStep, StepFigures], object] = lambda *_: None,
) -> None:
    """Has something done before each step, with its batch and the samples before it, and after it."""
    original = TrainingStep.__call__

    def step(self: TrainingStep, batch: Batch, *, rate: float, samples: int, progress: float) -> StepFigures | None:
        before(self, batch, samples)
        figures = original(self, batch, rate=rate, samples=samples, progress=progress)
        if figures is not None:
            after(self, figures)
        return figures

    patch.setattr(TrainingStep, "__call__", step)


def command_line(folder: Path, *options: str, photographs: int = 12) -> list[str]:
    """``bootstrap`` on photographs in ``folder`` with a tiny teacher; where to write is to be added."""
    write_images(folder / "photos", photographs)
    teacher = write_teacher(folder / "teacher.safetensors")
    given = ["bootstrap", "--teacher", teacher, "--data", str(folder / "photos"), "--front", "grid"]
    return [*given, "--image-size", str(SIDE), "--holdout", "0.25", "--precision", "fp32", *options]


@contextmanager
def each_checkpoint_awaited() -> Iterator[None]:
    """Within it a checkpoint that is due is written even if the one before takes long."""

    def not_busy(self: Checkpointer) -> bool:
        self._join()
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpointer, "is_busy", property(not_busy))
        yield


def without_times(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics without times, rates, and what is of the machine."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in RunFolder(run).read_metrics()]


def weights(run: Path) -> dict[str, bytes]:
    """All bytes of a run's weights, by name."""
    with safe_open(run / "model.safetensors", "np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Changes what is in a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def flip(path: Path, place: int) -> None:
    """Changes a bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
