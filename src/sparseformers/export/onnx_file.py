"""A .onnx file, for ONNX Runtime and its kin."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseformers.errors import ConfigError
from sparseformers.evaluate import parameters
from sparseformers.export.check import Runner
from sparseformers.export.config import ExportConfig, Precision
from sparseformers.export.formats import Contents
from sparseformers.export.network import network_of
from sparseformers.export.quantise import quantise_onnx
from sparseformers.export.tracing import trace

OPSET = 20
"""The first one that has GELU as an operator."""
MOST_BYTES = 2_000_000_000
"""Of weights: Protocol Buffers hold no more in one file."""


class OnnxFile:
    """Input ``images``, output ``embedding``; metadata_props say what it is."""

    suffix = ".onnx"
    libraries: Mapping[str, str] = {"onnx": "export", "onnxscript": "export", "onnxruntime": "export"}
    precisions: Mapping[Precision, str | None] = {
        "fp32": None,
        "bf16": "ONNX Runtime has no products in bfloat16 on processors",
        "int8": None,
    }

    def refuse(self, settings: ExportConfig) -> None:
        pass

    def files(self, path: Path) -> Sequence[Path]:
        return [path]

    def write(self, contents: Contents, path: Path) -> None:
        student, settings = contents.student, contents.settings
        if 4 * parameters(student) > MOST_BYTES:
            raise ConfigError(
                f"The student's {parameters(student) / 1e6:.0f}M parameters do not fit into one .onnx file, which holds 2 GB.",
                "Use --format openvino or torch-export.",
            )
        program = trace(network_of(student, settings), settings, student.config.preprocessing.size)
        with _quiet():
            translated = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["embedding"],
                external_data=False,
                verbose=False,
            )
        assert translated is not None
        translated.model.producer_name = "sparseformers"
        translated.model.producer_version = contents.metadata["sparseformers"]
        translated.model.metadata_props.update(contents.metadata)
        translated.save(path, external_data=False)
        if settings.precision == "int8":
            quantise_onnx(path, contents.calibration)

    def open(self, path: Path) -> Runner:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

        return run


@contextlib.contextmanager
def _quiet() -> Any:
    """Keeps the translation from talking about itself."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        level = logging.getLogger("torch.onnx").level
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)
