"""The folder of a comparison: its files, the conditions it was made under, and what is finished in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.recipes.measure import Measurement
from sparseformers.errors import ConfigError, RunError
from sparseformers.files import write_json
from sparseformers.inheritance import Shares
from sparseformers.modes import Precision
from sparseformers.settings import Mark, from_dict, to_dict
from sparseformers.train import BootstrapConfig, RunFolder
from sparseformers.work_folder import InFolder, WorkFolder, differences


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions that all figures hold for; written down, so that it stays so when the comparison goes on later."""

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
    """The student of one training at its end, on the test images, and its curve of held-out measurements."""

    seed: int
    measurement: Measurement
    samples: int
    seconds: float
    shares: Shares
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class ComparisonFolder(WorkFolder):
    """The files of one comparison; the training of ROW with the seed K is the run ROW/seed-K in it."""

    KIND: ClassVar[str] = "comparison of recipes"
    MANIFEST: ClassVar[str] = "bench.json"

    teacher = InFolder("teacher.safetensors")
    """The teacher's answers to the images that are judged on."""
    baselines = InFolder("baselines.json")
    """Measurements of what needs no training, by name."""
    report = InFolder("report.json")
    """All figures, those of the newest table."""

    def run(self, row: str, seed: int) -> RunFolder:
        """The training of a row."""
        return RunFolder(self.path / row / f"seed-{seed}")

    def measured(self, row: str, seed: int) -> Path:
        """The measurements of that training."""
        return self.run(row, seed).path / "bench.json"

    def read_conditions(self) -> Conditions | None:
        """The conditions of what is in the folder, None for a new one; raises RunError if they cannot be read."""
        return self._read(self.manifest, Conditions) if self.is_begun else None

    def keep_conditions(self, conditions: Conditions) -> None:
        """Writes the conditions down, or raises RunError if others are there or the folder cannot be written to."""
        kept = self.read_conditions()
        if kept is None:
            with self.writing():
                self.write_manifest(to_dict(conditions))
        elif changes := differences(to_dict(kept), to_dict(conditions)):
            told = "; ".join(changes)
            raise RunError(f"The folder '{self.path}' holds a comparison of something else: {told}.", "Choose another --out.")

    def is_finished(self, row: str, settings: BootstrapConfig) -> bool:
        """Whether this training is at its end; raises RunError if there is one with other settings, or something that is none."""
        run = self.run(row, settings.optimisation.seed)
        run.require_ours()
        if not run.is_begun:
            return False
        there, asked = run.settings().flat(), settings.flat()
        for name in BootstrapConfig.marked(Mark.WITHOUT_EFFECT):
            there.pop(name), asked.pop(name)
        if changes := differences(json.loads(json.dumps(there)), asked):
            raise RunError(
                f"The training '{run.path}' has other settings than are asked for: {'; '.join(changes)}.",
                f"Choose another --out, ask for those settings, or remove the folder '{self.path / row}' to train it anew.",
            )
        return run.is_finished

    def read_measured(self, row: str, seed: int) -> RunMeasurement | None:
        """The measurements of a training, None if there are none yet."""
        path = self.measured(row, seed)
        return self._read(path, RunMeasurement) if path.is_file() else None

    def read_baselines(self) -> dict[str, Measurement]:
        """The measurements of networks that need no training."""
        content = self.read_json(self.baselines) if self.baselines.is_file() else {}
        return {name: from_dict(Measurement, values, where=f"'{self.baselines}'") for name, values in content.items()}

    def keep_baseline(self, name: str, measurement: Measurement) -> None:
        """Adds a measurement of a network that needs no training."""
        kept = {name: to_dict(value) for name, value in self.read_baselines().items()}
        write_json(self.baselines, kept | {name: to_dict(measurement)})

    def _read(self, path: Path, kind: type) -> Any:
        try:
            return from_dict(kind, self.read_json(path), where=f"content of '{path}'")
        except ConfigError as error:
            raise RunError(
                f"The file '{path}' is not of a comparison: {error.problem}", "Remove it, or choose another --out."
            ) from None
