"""PyTorch operator by operator, made ready for inference as far as that goes without a compiler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.speed.backends.base import Conditions, Opening
from benchmarks.speed.backends.pytorch import InPyTorch
from benchmarks.speed.subjects import Subject
from sparseformers.exporting.config import Precision
from sparseformers.inference import pack_weights


@dataclass(frozen=True)
class Packed:
    """A student folded for its embedding, and the weights of any network packed for oneDNN."""

    libraries: Sequence[tuple[str, str]] = ()

    def why_not(self, subject: Subject, precision: Precision, conditions: Conditions) -> str | None:
        if conditions.device.type != "cpu":
            return "weights are packed for processors only"
        if not torch.backends.mkldnn.is_available():
            return "this PyTorch was built without oneDNN"
        return None if precision == "fp32" else "weights are packed in float32 only"

    def prepare(
        self, subject: Subject, precision: Precision, conditions: Conditions, calibration: Sequence[Tensor], folder: Path
    ) -> Opening:
        folded = subject.folded
        # Packed where it is run: packed weights cannot be sent to another process.
        return InPyTorch(folded.network, folded.cost, precision, conditions.device, compiled=False, finish=pack_weights)
