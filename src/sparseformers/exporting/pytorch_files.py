"""The files of PyTorch: programs that run without this package (.pt2), and weights for this package (.safetensors)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from sparseformers.errors import ConfigError
from sparseformers.exporting.config import ExportConfig, Precision
from sparseformers.exporting.formats import Contents, FileFormat, Runner
from sparseformers.saving import load, save

METADATA_FILE = "sparseformers.json"  # says what it is: ``torch.export.load(path, extra_files={"sparseformers.json": ""})``


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
