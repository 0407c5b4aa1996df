"""The folder of a bench: what lies where, under which conditions it was made, and what is finished in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.recipes.measure import Measurement
from sparseformers.errors import ConfigError, RunError
from sparseformers.files import write_json
from sparseformers.inheritance import Shares
from sparseformers.modes import Precision
from sparseformers.settings import Mark, from_dict, to_dict
from sparseformers.train import BootstrapConfig, RunFolder


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What all figures of a bench hold for; written down, so that it stays so when the bench goes on later."""

    teacher: str
    teacher_fingerprint: str
    eval_data: str
    images_digest: str
    test_images: int
    train_images: int
    image_size: tuple[int, int]
    crop: float
    precision: Precision

    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(to_dict(self)).encode()).hexdigest()


@dataclass(frozen=True)
class CurvePoint:
    """A held-out measurement along a training."""

    samples: int
    seconds: float
    centred_cosine: float


@dataclass(frozen=True)
class RunMeasurement:
    """What came of one training."""

    seed: int
    measurement: Measurement
    samples: int
    seconds: float
    shares: Shares
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class ComparisonFolder:
    """The files of one bench."""

    path: Path

    @property
    def conditions(self) -> Path:
        """What all figures hold for."""
        return self.path / "bench.json"

    @property
    def teacher(self) -> Path:
        """The teacher's answers to the images that are judged on."""
        return self.path / "teacher.safetensors"

    @property
    def baselines(self) -> Path:
        """Measurements of what needs no training, by name."""
        return self.path / "baselines.json"

    @property
    def report(self) -> Path:
        """All figures, those of the newest table."""
        return self.path / "report.json"

    def run(self, row: str, seed: int) -> RunFolder:
        """The training of a row."""
        return RunFolder(self.path / row / f"seed-{seed}")

    def measured(self, row: str, seed: int) -> Path:
        """What was measured of it."""
        return self.run(row, seed).path / "bench.json"

    def refuse_others(self) -> None:
        """Raises RunError if there is something at the folder that is no bench, before anything is loaded or written."""
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"The output '{self.path}' is a file.", "Give a folder to --out.")
        if self.path.is_dir() and any(self.path.iterdir()) and not self.conditions.is_file():
            raise RunError(f"The folder '{self.path}' is in use, and not by a bench.", "Choose another --out.")

    def read_conditions(self) -> Conditions | None:
        """The conditions of what is in the folder; None for a new one.

        Raises:
            RunError: if they cannot be read.
        """
        if not self.conditions.is_file():
            return None
        return _read(self.conditions, Conditions)

    def keep_conditions(self, conditions: Conditions) -> None:
        """Writes the conditions down, or holds them against those that are there.

        Raises:
            RunError: if these are others, or the folder cannot be written to.
        """
        kept = self.read_conditions()
        if kept is None:
            try:
                write_json(self.conditions, to_dict(conditions))
            except OSError as error:
                raise RunError(f"The folder '{self.path}' cannot be made ({error.strerror}).", "Choose another --out.") from None
            return
        if changes := differences(to_dict(kept), to_dict(conditions)):
            raise RunError(f"The folder '{self.path}' holds a bench of something else ({changes}).", "Choose another --out.")

    def is_finished(self, row: str, settings: BootstrapConfig) -> bool:
        """Whether this training is there and at its end.

        Raises:
            RunError: if there is one with other settings, or something that is none.
        """
        run = self.run(row, settings.optimisation.seed)
        if not run.config.is_file():
            RunFolder.refuse(run.path, overwrite=False)
            return False
        there, asked = run.settings().flat(), settings.flat()
        for name in BootstrapConfig.marked(Mark.WITHOUT_EFFECT):
            there.pop(name), asked.pop(name)
        if changes := differences(there, asked):
            raise RunError(
                f"The training '{run.path}' has other settings than are asked for ({changes}).",
                f"Choose another --out, ask for those settings, or remove the folder '{self.path / row}' to train it anew.",
            )
        return run.is_finished

    def read_measured(self, row: str, seed: int) -> RunMeasurement | None:
        """What was measured of a training; None if nothing was."""
        path = self.measured(row, seed)
        return _read(path, RunMeasurement) if path.is_file() else None

    def read_baselines(self) -> dict[str, Measurement]:
        """What was measured of networks that need no training."""
        if not self.baselines.is_file():
            return {}
        content = _load(self.baselines)
        return {name: from_dict(Measurement, values, where=f"'{self.baselines}'") for name, values in content.items()}

    def keep_baseline(self, name: str, measurement: Measurement) -> None:
        """Adds a measurement of a network that needs no training."""
        kept = {name: to_dict(value) for name, value in self.read_baselines().items()}
        write_json(self.baselines, kept | {name: to_dict(measurement)})


def differences(there: dict[str, Any], asked: dict[str, Any]) -> str:
    """The entries that differ, as a phrase; empty if none do."""
    names = [name for name in asked if there.get(name) != asked[name]]
    return "; ".join(f"{name} {there.get(name)} there, {asked[name]} asked" for name in names)


def _read(path: Path, kind: type) -> Any:
    try:
        return from_dict(kind, _load(path), where=f"content of '{path}'")
    except ConfigError as error:
        raise RunError(
            f"The file '{path}' is not what a bench writes: {error.problem}", "Remove it, or choose another --out."
        ) from None


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"The file '{path}' cannot be read ({error}).", "Remove it, or choose another --out.") from None
    return dict(content)
