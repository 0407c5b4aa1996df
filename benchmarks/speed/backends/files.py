"""Exported files in their runtimes: ONNX Runtime and OpenVINO."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.speed.backends.base import Conditions, Opening
from benchmarks.speed.backends.profiles import of_onnxruntime, of_openvino
from benchmarks.speed.operators import Profile
from benchmarks.speed.subjects import Subject
from sparseformers.evaluation import Cost
from sparseformers.exporting.config import ExportConfig, Format, Precision
from sparseformers.exporting.formats import Runner, trace
from sparseformers.exporting.network import with_bfloat16_layers
from sparseformers.exporting.onnx_file import OnnxFile, open_onnx, write_onnx
from sparseformers.exporting.openvino_file import OpenVinoFile, has_bfloat16, open_openvino, write_openvino

ON_CPU = "its files are run on the CPU only"


@dataclass(frozen=True)
class OnnxRuntime:
    """The .onnx file that ``export`` writes, for any batch; opened for one."""

    libraries: Sequence[tuple[str, str]] = tuple(OnnxFile.libraries.items())

    def why_not(self, subject: Subject, precision: Precision, conditions: Conditions) -> str | None:
        return ON_CPU if conditions.device.type != "cpu" else OnnxFile.lacks.get(precision)

    def prepare(
        self, subject: Subject, precision: Precision, conditions: Conditions, calibration: Sequence[Tensor], folder: Path
    ) -> Opening:
        settings = _settings(subject, "onnx", precision)
        program = trace(subject.portable(), settings, subject.preprocessing.size)
        path = folder / "model.onnx"
        write_onnx(program, path, calibration=calibration if precision == "int8" else ())
        return InOnnxRuntime(path, subject.folded.cost, conditions.threads)


@dataclass(frozen=True)
class InOnnxRuntime:
    """A .onnx file."""

    path: Path
    cost: Cost
    threads: int

    def open(self, batch: int) -> Runner:
        return open_onnx(self.path, batch=batch, threads=self.threads)

    def profile(self, run: Runner, images: Tensor, path: Path) -> Profile:
        return of_onnxruntime(self.path, self.threads, images, path)


@dataclass(frozen=True)
class OpenVino:
    """The files that ``export`` writes for OpenVINO, for any batch; opened for one."""

    libraries: Sequence[tuple[str, str]] = tuple(OpenVinoFile.libraries.items())

    def why_not(self, subject: Subject, precision: Precision, conditions: Conditions) -> str | None:
        if conditions.device.type != "cpu":
            return ON_CPU
        if precision == "bf16" and not has_bfloat16():
            return "OpenVINO has no bfloat16 on this processor, and would compute in float32"
        return None

    def prepare(
        self, subject: Subject, precision: Precision, conditions: Conditions, calibration: Sequence[Tensor], folder: Path
    ) -> Opening:
        settings = _settings(subject, "openvino", precision)
        network = subject.portable()
        if precision == "bf16":
            network = with_bfloat16_layers(copy.deepcopy(network))
        program = trace(network, settings, subject.preprocessing.size)
        path = folder / "model.xml"
        write_openvino(program, path, calibration=calibration if precision == "int8" else ())
        return InOpenVino(path, subject.folded.cost, conditions.threads)


@dataclass(frozen=True)
class InOpenVino:
    """A .xml file with its .bin file."""

    path: Path
    cost: Cost
    threads: int

    def open(self, batch: int) -> Runner:
        return open_openvino(self.path, batch=batch, threads=self.threads)

    def profile(self, run: Runner, images: Tensor, path: Path) -> Profile:
        return of_openvino(self.path, self.threads, images)


def _settings(subject: Subject, format: Format, precision: Precision) -> ExportConfig:
    """Those of a file for any batch of images of the model's own size."""
    height, width = subject.preprocessing.size
    return ExportConfig(format=format, precision=precision, size=f"{height}x{width}")
