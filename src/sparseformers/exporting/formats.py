"""What the formats of exported files have in common."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.exporting.check import Runner
from sparseformers.exporting.config import ExportConfig, Precision
from sparseformers.inheritance import Provenance
from sparseformers.model import SparseFormer


@dataclass(frozen=True)
class Contents:
    """What goes into a file."""

    student: SparseFormer
    """On the CPU, in float32 and evaluation mode."""
    provenance: Provenance | None
    """Where it comes from."""
    settings: ExportConfig
    """Of the export."""
    metadata: Mapping[str, str]
    """What the file says of itself."""
    calibration: Sequence[Tensor]
    """For int8: batches of images of the kind that the file takes."""


class FileFormat(Protocol):
    """One kind of exported file."""

    @property
    def suffix(self) -> str:
        """What its name ends in."""

    @property
    def libraries(self) -> Mapping[str, str]:
        """The packages that it needs, and the extra that each comes with."""

    @property
    def precisions(self) -> Mapping[Precision, str | None]:
        """For each precision None, or why the format does not have it."""

    def refuse(self, settings: ExportConfig) -> None:
        """Raises ConfigError for what else the format does not have."""

    def files(self, path: Path) -> Sequence[Path]:
        """All that makes up the file ``path``, itself last."""

    def write(self, contents: Contents, path: Path) -> None:
        """Writes the file, and what belongs to it, into a folder that is there."""

    def open(self, path: Path) -> Runner:
        """The file as whoever deploys it opens it: in its runtime on the CPU, in the precision of the file."""


def require(kind: FileFormat, settings: ExportConfig) -> None:
    """Refuses what makes no sense before any work is done.

    Raises:
        ConfigError: if the format does not have what is asked for.
        MissingExtraError: if a library that it needs is not installed.
    """
    reason = kind.precisions[settings.precision]
    if reason is not None:
        raise ConfigError(f"The format {settings.format} has no {settings.precision}: {reason}.", _elsewhere(settings.precision))
    kind.refuse(settings)
    for library, extra in kind.libraries.items():
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError.for_package(library, extra)


def _elsewhere(precision: Precision) -> str:
    formats = {"bf16": "openvino, torch-export or safetensors", "int8": "onnx or openvino"}
    return f"Use --format {formats[precision]}, or --precision fp32."
