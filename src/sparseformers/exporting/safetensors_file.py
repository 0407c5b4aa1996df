"""A .safetensors file: the weights for :func:`sparseformers.load`, at half the size if need be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sparseformers.errors import ConfigError
from sparseformers.exporting.check import Runner
from sparseformers.exporting.config import ExportConfig, Precision
from sparseformers.exporting.formats import Contents
from sparseformers.saving import load, save


class SafetensorsFile:
    """``sparseformers.load(path)`` gives the student with all that it has: logits, tokens, RoIs, any number of tokens."""

    suffix = ".safetensors"
    libraries: Mapping[str, str] = {}
    precisions: Mapping[Precision, str | None] = {
        "fp32": None,
        "bf16": None,
        "int8": "it holds weights for this package, which computes with floats",
    }

    def refuse(self, settings: ExportConfig) -> None:
        for name, is_set in (
            ("--with-preprocessing", settings.with_preprocessing),
            ("--batch", settings.batch != "dynamic"),
            ("--size", settings.size != "dynamic"),
            ("--tokens", settings.tokens is not None),
        ):
            if is_set:
                raise ConfigError(
                    f"A .safetensors file holds weights and no program, so that {name} has no meaning.",
                    f"Leave out {name}, or use --format onnx, openvino or torch-export.",
                )

    def files(self, path: Path) -> Sequence[Path]:
        return [path]

    def write(self, contents: Contents, path: Path) -> None:
        weights = contents.student.state_dict()
        if contents.settings.precision == "bf16":
            weights = {name: value.bfloat16() if value.is_floating_point() else value for name, value in weights.items()}
        save(contents.student, path, provenance=contents.provenance, weights=weights, metadata=contents.metadata)

    def open(self, path: Path) -> Runner:
        student = load(path)

        def run(images: Tensor) -> Tensor:
            with torch.inference_mode():
                embedding: Tensor = student(images).embedding
            return embedding

        return run
