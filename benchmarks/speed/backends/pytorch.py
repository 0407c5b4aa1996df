"""PyTorch itself: operator by operator, or compiled."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.backends.base import Conditions, Opening
from benchmarks.speed.backends.profiles import of_pytorch
from benchmarks.speed.operators import Profile
from benchmarks.speed.subjects import Subject
from sparseformers.evaluation import Cost
from sparseformers.evaluation.backends import cast_layers, compile_network
from sparseformers.exporting.config import Precision
from sparseformers.exporting.formats import Runner
from sparseformers.modes import autocast_dtype, inference

EMULATED = 4.0
"""So many times as slow as float32, a product in bfloat16 is put together of other instructions."""
SIDE = 256
"""Of the matrices that this is found out with."""
TRIES = 20
"""How often each is multiplied; the shortest time counts."""

Finish = Callable[[nn.Module], nn.Module]
"""What is done to a network where it is run; a function of a module, so that another process finds it."""


def unchanged(network: nn.Module) -> nn.Module:
    """The network itself."""
    return network


@dataclass(frozen=True)
class PyTorchBackend:
    """Runs a network in PyTorch: as it is loaded, or compiled, for which a student is folded for its embedding.

    bfloat16 is autocast with the weights of the layers cast once and for all: autocast by itself casts them anew in each pass,
    as long as nothing is learnt.
    """

    compiled: bool
    libraries: Sequence[tuple[str, str]] = ()

    def why_not(self, subject: Subject, precision: Precision, conditions: Conditions) -> str | None:
        if precision == "int8":
            return "PyTorch itself has no int8 layers any more; onnxruntime and openvino have"
        if precision == "bf16" and (slower := _bfloat16_slower(conditions.device)) > EMULATED:
            return f"this machine has no bfloat16: a product in it takes {slower:.0f} times as long as in float32"
        return None

    def prepare(
        self, subject: Subject, precision: Precision, conditions: Conditions, calibration: Sequence[Tensor], folder: Path
    ) -> Opening:
        run = subject.folded if self.compiled else subject
        network = copy.deepcopy(run.network).to(conditions.device)
        if precision == "bf16":
            cast_layers(network)
        return InPyTorch(network, run.cost, precision, conditions.device, self.compiled)


@dataclass(frozen=True)
class InPyTorch:
    """A network of its own for one precision."""

    network: nn.Module
    cost: Cost
    precision: Precision
    device: torch.device
    compiled: bool
    finish: Finish = unchanged

    def open(self, batch: int) -> Runner:
        dtype = autocast_dtype("bf16" if self.precision == "bf16" else "fp32")
        network, device = self.finish(self.network), self.device
        run: Callable[[Tensor], Any] = compile_network(network, device) if self.compiled else network

        def embed(images: Tensor) -> Tensor:
            with inference(device, dtype):
                return run(images)

        return embed

    def profile(self, run: Runner, images: Tensor, path: Path) -> Profile:
        return of_pytorch(run, images, path)


@cache
def _bfloat16_slower(device: torch.device) -> float:
    """How many times as long as in float32 a product in bfloat16 takes."""
    shortest = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    matrices = {dtype: torch.ones(SIDE, SIDE, dtype=dtype, device=device) for dtype in shortest}
    for _ in range(TRIES):  # in turns, so that what else the machine does is no difference between the two
        for dtype, matrix in matrices.items():
            shortest[dtype] = min(shortest[dtype], _product_seconds(matrix))
    return shortest[torch.bfloat16] / shortest[torch.float32]


@torch.inference_mode()
def _product_seconds(matrix: Tensor) -> float:
    start = time.perf_counter()
    (matrix @ matrix)[0, 0].item()  # which waits for the device
    return time.perf_counter() - start
