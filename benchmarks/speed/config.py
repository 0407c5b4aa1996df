"""All settings of a measurement of speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from benchmarks.speed.subjects import KINDS
from sparseformers.errors import ConfigError, suggest
from sparseformers.exporting.config import Precision
from sparseformers.profiling.backends import BACKENDS

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")


def _separated(kind: Callable[[str], Any], metavar: str) -> Any:
    """How values separated by commas are read."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda texts: tuple(kind(part.strip()) for part in texts[0].split(",") if part.strip()),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda values: [",".join(str(value) for value in values)],
    )


Names = Annotated[tuple[str, ...], _separated(str, "NAME,NAME...")]
Numbers = Annotated[tuple[int, ...], _separated(int, "N,N...")]


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """What to measure, and how."""

    models: Names = KINDS
    """What to compare: student; teacher; tome (token merging on the teacher at the student's multiply-adds); low-resolution (the
    teacher on images so small that it has as many tokens); small-vit (plain vision transformers of equal multiply-adds, random
    weights); and further students: run folders, model files or named sizes."""
    batch: Numbers = (1, 16)
    """Images at a time."""
    precision: Names = ("fp32",)
    """Of the matrix products: fp32, bf16, int8 (onnxruntime and openvino, calibrated on --images)."""
    backend: Names = ()
    """What runs the models: eager, packed, compile, onnxruntime, openvino; by default all that are installed."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    threads: int | None = None
    """Threads of every backend on the CPU; PyTorch's own number by default."""
    turns: int = 20
    """How often each model has its turn at each batch size, at the most."""
    seconds: float = 60.0
    """After so many seconds of turns at a batch size no further one begins; three there are in any case."""
    images: Path | None = None
    """A folder of images for the cosine, and for calibration in int8. Without it they are made of noise: times are the same,
    but the cosine of int8 says nothing then."""
    trace: Path | None = None
    """A new folder for a trace of each route at each batch size (of OpenVINO there is none), which chrome://tracing and Perfetto
    show; and print which operators take how long, on CUDA which kernels. Passes that are timed are not traced."""
    memory: bool = True
    """Measure peak memory, each model in a process of its own, which takes some seconds each."""

    def __post_init__(self) -> None:
        for name, values in (("models", self.models), ("batch", self.batch), ("precision", self.precision)):
            if not values:
                raise ConfigError(f"--{name} names nothing.", f"Leave out --{name}, or see python -m benchmarks speed --help.")
        _require_known("precision", self.precision, PRECISIONS)
        _require_known("backend", self.backend, BACKENDS)
        for name, value in (("batch", min(self.batch)), ("threads", self.threads), ("turns", self.turns)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, not {value}.", "Use 1 or more.")
        if not self.seconds > 0:
            raise ConfigError(f"--seconds must be above 0, not {self.seconds:g}.", "Use 60, for example.")
        if self.images is not None and not self.images.exists():
            raise ConfigError(f"The folder '{self.images}' of --images does not exist.", "Name a folder of images.")
        if self.trace is not None and (self.trace.is_file() or (self.trace.is_dir() and any(self.trace.iterdir()))):
            raise ConfigError(f"There is something at '{self.trace}' already.", "Name a new folder for --trace.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("PyTorch sees no CUDA device on this machine.", "Use --device cpu.")


def _require_known(flag: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            near = suggest(name, known)
            raise ConfigError(f"--{flag} has no '{name}'.", f"{near} Known: {', '.join(known)}.".strip())
