"""A .pt2 file: a program of PyTorch that runs without this package."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from sparseformers.exporting.check import Runner
from sparseformers.exporting.config import ExportConfig, Precision
from sparseformers.exporting.formats import Contents
from sparseformers.exporting.network import network_of
from sparseformers.exporting.tracing import trace

METADATA_FILE = "sparseformers.json"
"""The extra file inside that says what it is: ``torch.export.load(path, extra_files={"sparseformers.json": ""})``."""


class TorchExportFile:
    """``torch.export.load(path).module()(images)`` gives embeddings, wherever PyTorch runs."""

    suffix = ".pt2"
    libraries: Mapping[str, str] = {}
    precisions: Mapping[Precision, str | None] = {
        "fp32": None,
        "bf16": None,
        "int8": "PyTorch itself has no quantised layers for it any more",
    }

    def refuse(self, settings: ExportConfig) -> None:
        pass

    def files(self, path: Path) -> Sequence[Path]:
        return [path]

    def write(self, contents: Contents, path: Path) -> None:
        program = trace(
            network_of(contents.student, contents.settings), contents.settings, contents.student.config.preprocessing.size
        )
        torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(dict(contents.metadata), indent=2)})

    def open(self, path: Path) -> Runner:
        return torch.export.load(path).module()
