"""A .xml file and a .bin file beside it, for OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sparseformers.export.check import Runner
from sparseformers.export.config import ExportConfig, Precision
from sparseformers.export.formats import Contents
from sparseformers.export.network import network_of
from sparseformers.export.quantise import quantise_openvino
from sparseformers.export.tracing import trace

SECTION = "sparseformers"
"""Where in the runtime information the metadata are: ``model.get_rt_info(["sparseformers", "teacher"])``."""


class OpenVinoFile:
    """Input ``images``, output ``embedding``; the weights are in a .bin file with the same stem, which has to stay beside it."""

    suffix = ".xml"
    precisions: Mapping[Precision, str | None] = {"fp32": None, "bf16": None, "int8": None}
    libraries: Mapping[str, str] = {"openvino": "openvino", "nncf": "openvino"}

    def refuse(self, settings: ExportConfig) -> None:
        pass

    def files(self, path: Path) -> Sequence[Path]:
        return [path.with_suffix(".bin"), path]

    def write(self, contents: Contents, path: Path) -> None:
        import openvino

        program = trace(
            network_of(contents.student, contents.settings), contents.settings, contents.student.config.preprocessing.size
        )
        model = openvino.convert_model(program)
        model.inputs[0].get_tensor().set_names({"images"})
        model.outputs[0].get_tensor().set_names({"embedding"})
        shape = model.inputs[0].get_partial_shape()
        shape[3 if contents.settings.with_preprocessing else 1] = 3  # which the conversion forgets
        model.reshape({"images": shape})
        if contents.settings.precision == "int8":
            model = quantise_openvino(model, program, contents.calibration)
        for name, value in contents.metadata.items():
            model.set_rt_info(value, [SECTION, name])
        openvino.save_model(model, path, compress_to_fp16=False)

    def open(self, path: Path) -> Runner:
        import openvino

        # Where the processor has bfloat16, OpenVINO computes files in float32 in it, unless told not to.
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(images: Tensor) -> Tensor:
            return torch.from_numpy(compiled(images.numpy())[0].copy())

        return run
