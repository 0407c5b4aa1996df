"""The formats of exported files, and the program that goes into them: their interface, and those of PyTorch itself.

These are programs that run without this package (.pt2), and weights for this package (.safetensors).
"""

from __future__ import annotations

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.exporting.config import ExportConfig, Precision
from sparseformers.exporting.network import network_of
from sparseformers.inheritance import Provenance
from sparseformers.model import SparseFormer
from sparseformers.model.sparseformer import SMALLEST_SIDE
from sparseformers.saving import load, save

Runner = Callable[[Tensor], Tensor]  # an exported file, opened: images to embeddings
# The mark of linear layers in the operators that they became. int8 is for these alone: attention, RoIs and sampling cost little,
# and RoIs need the digits.
LINEAR = "torch.nn.modules.linear.Linear"
LONGEST_SIDE = 65_536  # pixels; the whole numbers inside of a resize stay exact up to there
METADATA_FILE = "sparseformers.json"  # says what it is: ``torch.export.load(path, extra_files={"sparseformers.json": ""})``


@dataclass(frozen=True)
class Contents:
    """The contents of a file."""

    student: SparseFormer  # on the CPU, in float32 and evaluation mode
    provenance: Provenance | None
    settings: ExportConfig
    metadata: Mapping[str, str]
    calibration: Sequence[Tensor]  # for int8: batches of images of the kind that the file takes; empty otherwise

    def program(self) -> ExportedProgram:
        return trace(network_of(self.student, self.settings), self.settings, self.student.config.preprocessing.size)


class FileFormat(ABC):
    """One kind of exported file."""

    suffix: str
    libraries: Mapping[str, str] = {}  # the packages that it needs, and the extra that each comes with
    lacks: Mapping[Precision, str] = {}  # why it does not have a precision, by precision

    def refuse(self, settings: ExportConfig) -> None:  # noqa: B027  # most formats have everything else
        """Raises ConfigError for what else the format does not have."""

    def files(self, path: Path) -> Sequence[Path]:
        """All that makes up the file ``path``, itself last."""
        return [path]

    @abstractmethod
    def write(self, contents: Contents, path: Path) -> None:
        """Writes the file, and what belongs to it, into a folder that is there."""

    @abstractmethod
    def open(self, path: Path) -> Runner:
        """The file as whoever deploys it opens it: in its runtime on the CPU, in the precision of the file."""


class TorchExportFile(FileFormat):
    """``torch.export.load(path).module()(images)`` gives embeddings, wherever PyTorch runs."""

    suffix = ".pt2"
    lacks: Mapping[Precision, str] = {"int8": "PyTorch itself has no quantised layers for it any more"}

    def write(self, contents: Contents, path: Path) -> None:
        torch.export.save(contents.program(), path, extra_files={METADATA_FILE: json.dumps(dict(contents.metadata), indent=2)})

    def open(self, path: Path) -> Runner:
        return torch.export.load(path).module()


class SafetensorsFile(FileFormat):
    """``sparseformers.load(path)`` gives the student with all that it has: logits, tokens, RoIs, any number of tokens."""

    suffix = ".safetensors"
    lacks: Mapping[Precision, str] = {"int8": "it holds weights for this package, which computes with floats"}

    def refuse(self, settings: ExportConfig) -> None:
        for name, is_set in (
            ("--with-preprocessing", settings.with_preprocessing),
            ("--batch", settings.batch != "dynamic"),
            ("--size", settings.size != "dynamic"),
            ("--tokens", settings.tokens is not None),
            ("--output dense", settings.output == "dense"),
        ):
            if is_set:
                problem = f"A .safetensors file holds weights and no program, so that {name} has no meaning."
                raise ConfigError(problem, f"Leave out {name}, or use --format onnx, openvino or torch-export.")

    def write(self, contents: Contents, path: Path) -> None:
        weights = contents.student.state_dict()
        if contents.settings.precision == "bf16":
            weights = {name: value.bfloat16() if value.is_floating_point() else value for name, value in weights.items()}
        save(contents.student, path, provenance=contents.provenance, weights=weights, metadata=contents.metadata)

    def open(self, path: Path) -> Runner:
        student = load(path)
        return torch.inference_mode()(lambda images: student(images).embedding)


def require_format(kind: FileFormat, settings: ExportConfig) -> None:
    """Raises ConfigError if the format does not have what is asked for, and MissingExtraError if a library of it is missing."""
    if settings.precision in kind.lacks:
        others = {"bf16": "openvino, torch-export or safetensors", "int8": "onnx or openvino"}[settings.precision]
        problem = f"The format {settings.format} has no {settings.precision}: {kind.lacks[settings.precision]}."
        raise ConfigError(problem, f"Use --format {others}, or --precision fp32.")
    kind.refuse(settings)
    for library, extra in kind.libraries.items():
        MissingExtraError.require(library, extra)


def trace(network: nn.Module, settings: ExportConfig, size: tuple[int, int]) -> ExportedProgram:
    """A network as a program for the settings' batches and sizes, traced at ``size`` (height, width) where any will do."""
    height, width = settings.height_and_width or (size[0], size[1] + 16)  # unlike sides, so that none is taken for the other
    batch = 2 if settings.batch == "dynamic" else settings.batch
    sides, black = (2, 3), torch.zeros(batch, 3, height, width)
    if settings.with_preprocessing:
        sides, black = (1, 2), torch.zeros(batch, height, width, 3, dtype=torch.uint8)
    dynamic: dict[int, Dim] = {0: Dim("batch", min=1)} if settings.batch == "dynamic" else {}
    if settings.height_and_width is None:
        least = 1 if settings.with_preprocessing else SMALLEST_SIDE
        dynamic |= {sides[0]: Dim("height", min=least, max=LONGEST_SIDE), sides[1]: Dim("width", min=least, max=LONGEST_SIDE)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about itself
        return torch.export.export(network, (black,), dynamic_shapes={"images": dynamic})
