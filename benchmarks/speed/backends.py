"""Ways to run a network in each precision: PyTorch eager, compiled or packed, and exported files by their runtimes.

They build on what ``profile`` times (:mod:`sparseformers.profiling.backends`) and add int8, costs, and peak memory's needs.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from benchmarks.speed.operators import Profile, of_onnxruntime, of_openvino, of_pytorch
from benchmarks.speed.subjects import Subject
from sparseformers.evaluation import Cost
from sparseformers.exporting.config import ExportConfig, Precision
from sparseformers.exporting.formats import trace
from sparseformers.exporting.network import Bfloat16Linear, replace_layers
from sparseformers.exporting.onnx_file import OnnxFile, open_onnx, write_onnx
from sparseformers.exporting.openvino_file import OpenVinoFile, open_openvino, openvino_core, write_openvino
from sparseformers.inference import pack_weights
from sparseformers.profiling.backends import Backend, Runner, cast_layers, compile_network, in_inference

LIBRARIES: Mapping[Backend, Mapping[str, str]] = {"onnxruntime": OnnxFile.libraries, "openvino": OpenVinoFile.libraries}
"""Packages that a backend needs beside PyTorch, and the extra that each comes with."""
EMULATED = 4.0
"""A product in bfloat16 that takes so many times as long as in float32 is put together of other instructions."""


class Route(NamedTuple):
    """One model in one precision on one backend, which is timed as one thing."""

    model: str
    precision: Precision
    backend: Backend

    def __str__(self) -> str:
        return f"{self.model}, {self.precision}, {self.backend}"


@dataclass(frozen=True)
class Conditions:
    """The device, and the threads of each backend on the CPU."""

    device: torch.device
    threads: int


class Opening(Protocol):
    """A model made ready for a backend. It can be pickled, so that another process can open it, too."""

    @property
    def cost(self) -> Cost:
        """Of the network that is run, which may be a cheaper one for the same embeddings than the model as it was loaded."""

    def open(self, batch: int) -> Runner:
        """The model for batches of one size: images B x 3 x H x W on the device to embeddings there."""

    def profile(self, run: Runner, images: Tensor, path: Path) -> Profile:
        """The operators of a pass of what ``open`` gave; ``path`` takes the trace, as far as the library writes one."""


@dataclass(frozen=True)
class InPyTorch:
    """A network in PyTorch."""

    network: nn.Module
    cost: Cost
    precision: Precision
    device: torch.device
    mode: Literal["eager", "compile", "packed"]

    def open(self, batch: int) -> Runner:
        dtype = torch.bfloat16 if self.precision == "bf16" else None
        if self.mode == "compile":
            return in_inference(compile_network(self.network, self.device), self.device, dtype)
        # Packed where it is run: packed weights can be neither saved nor sent to another process.
        network = pack_weights(self.network) if self.mode == "packed" else self.network
        return in_inference(network, self.device, dtype)

    def profile(self, run: Runner, images: Tensor, path: Path) -> Profile:
        return of_pytorch(run, images, path)


@dataclass(frozen=True)
class InFile:
    """A .onnx file, or a .xml file with its .bin file, as ``export`` writes them, for any batch."""

    path: Path
    cost: Cost
    threads: int

    def open(self, batch: int) -> Runner:
        opened = open_onnx if self.path.suffix == ".onnx" else open_openvino
        return opened(self.path, batch=batch, threads=self.threads)

    def profile(self, run: Runner, images: Tensor, path: Path) -> Profile:
        if self.path.suffix == ".onnx":
            return of_onnxruntime(self.path, self.threads, images, path)
        return of_openvino(self.path, self.threads, images)


def why_not(backend: Backend, precision: Precision, device: torch.device) -> str | None:
    """Why a backend does not run models in this precision on this device, in a line; None where it does."""
    if backend in ("packed", "onnxruntime", "openvino") and device.type != "cpu":
        return "it runs on processors only"
    if backend == "packed":
        if not torch.backends.mkldnn.is_available():
            return "this PyTorch was built without oneDNN, for which weights are packed"
        return None if precision == "fp32" else "weights are packed in float32 only"
    if backend == "onnxruntime":
        return OnnxFile.lacks.get(precision)
    if backend == "openvino":
        if precision == "bf16" and "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return "OpenVINO has no bfloat16 on this processor, and would compute in float32"
        return OpenVinoFile.lacks.get(precision)
    if precision == "int8":
        return "PyTorch itself has no int8 layers any more; onnxruntime and openvino have"
    if precision == "bf16" and (slower := _bfloat16_slower(device)) > EMULATED:
        return f"this machine has no bfloat16: a product in it takes {slower:.0f} times as long as in float32"
    return None


def make_ready(
    subject: Subject, backend: Backend, precision: Precision, conditions: Conditions, calibration: Sequence[Tensor], folder: Path
) -> Opening:
    """Makes a model ready for a backend; the model stays as it is.

    Args:
        subject: the model; a student is folded for its embedding, but for eager.
        backend: what runs it.
        precision: of its matrix products.
        conditions: where and with how many threads.
        calibration: for int8, batches of images as the model takes them.
        folder: to write files to, which lasts as long as the model is used.
    """
    if backend in ("onnxruntime", "openvino"):
        return _exported(subject, backend, precision, conditions, calibration, folder)
    run = subject if backend == "eager" else subject.folded
    network = run.network if backend == "packed" else copy.deepcopy(run.network).to(conditions.device)
    if precision == "bf16":
        cast_layers(network)
    return InPyTorch(network, run.cost, precision, conditions.device, cast(Literal["eager", "compile", "packed"], backend))


def _exported(
    subject: Subject, backend: Backend, precision: Precision, conditions: Conditions, calibration: Sequence[Tensor], folder: Path
) -> Opening:
    """A file for any batch of images of the model's own size."""
    as_onnx = backend == "onnxruntime"
    height, width = subject.preprocessing.size
    settings = ExportConfig(format="onnx" if as_onnx else "openvino", precision=precision, size=f"{height}x{width}")
    network = subject.portable()
    if precision == "bf16":
        network = replace_layers(copy.deepcopy(network), nn.Linear, Bfloat16Linear)
    path = folder / ("model.onnx" if as_onnx else "model.xml")
    write = write_onnx if as_onnx else write_openvino
    write(trace(network, settings, subject.preprocessing.size), path, calibration=calibration if precision == "int8" else ())
    return InFile(path, subject.folded.cost, conditions.threads)


@cache
def _bfloat16_slower(device: torch.device) -> float:
    """How many times as long as in float32 a product in bfloat16 takes: the shortest of 20 tries each, in turns."""
    shortest = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    matrices = {dtype: torch.ones(256, 256, dtype=dtype, device=device) for dtype in shortest}
    with torch.inference_mode():
        for _ in range(20):
            for dtype, matrix in matrices.items():
                start = time.perf_counter()
                (matrix @ matrix)[0, 0].item()  # which waits for the device
                shortest[dtype] = min(shortest[dtype], time.perf_counter() - start)
    return shortest[torch.bfloat16] / shortest[torch.float32]
