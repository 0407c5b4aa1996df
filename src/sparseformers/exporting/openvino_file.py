"""A .xml file and a .bin file beside it, for OpenVINO."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from sparseformers.exporting.formats import LINEAR, Contents, FileFormat, Runner

SECTION = "sparseformers"  # of the runtime information that has the metadata: ``model.get_rt_info(["sparseformers", NAME])``


class OpenVinoFile(FileFormat):
    """Input ``images``, output ``embedding`` or ``dense``; the weights in a .bin file of the same stem have to stay beside it."""

    suffix = ".xml"
    libraries: Mapping[str, str] = {"openvino": "openvino", "nncf": "openvino"}

    def files(self, path: Path) -> Sequence[Path]:
        return [path.with_suffix(".bin"), path]

    def write(self, contents: Contents, path: Path) -> None:
        channels = 3 if contents.settings.with_preprocessing else 1
        of_file: dict[str, Any] = {"metadata": contents.metadata, "calibration": contents.calibration}
        write_openvino(contents.program(), path, output=contents.settings.output, **of_file, channels=channels)

    def open(self, path: Path) -> Runner:
        return open_openvino(path)


def write_openvino(
    program: ExportedProgram,
    path: Path,
    *,
    output: str = "embedding",
    metadata: Mapping[str, str] | None = None,
    calibration: Sequence[Tensor] = (),
    channels: int = 1,
) -> None:
    """Writes a program as .xml and .bin files, as :func:`write_onnx` does; ``channels`` is the axis of the images' colours."""
    import openvino

    model = openvino.convert_model(program)
    model.inputs[0].get_tensor().set_names({"images"})
    model.outputs[0].get_tensor().set_names({output})
    shape = model.inputs[0].get_partial_shape()
    shape[channels] = 3  # which the conversion forgets
    model.reshape({"images": shape})
    if calibration:
        model = quantise_openvino(model, program, calibration)
    for name, value in (metadata or {}).items():
        model.set_rt_info(value, [SECTION, name])
    openvino.save_model(model, path, compress_to_fp16=False)


def open_openvino(path: Path, *, batch: int | None = None, threads: int | None = None) -> Runner:
    """Opens a .xml file in OpenVINO on the CPU, for any number of images or for ``batch`` of them at a time."""
    compiled = compiled_openvino(path, batch=batch, threads=threads)
    return lambda images: torch.from_numpy(compiled(images.numpy())[0].copy())


def compiled_openvino(path: Path, *, batch: int | None = None, threads: int | None = None, profiled: bool = False) -> Any:
    """A model compiled by OpenVINO as for :func:`open_openvino`; ``profiled`` requests tell the times of their operators."""
    core = openvino_core()
    model = core.read_model(path)
    if batch is not None:
        shape = model.inputs[0].get_partial_shape()
        shape[0] = batch
        model.reshape({"images": shape})
    # Where the processor has bfloat16, OpenVINO computes files in float32 in it, unless told not to.
    options: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": "YES" if profiled else "NO"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(model, "CPU", options)


@cache
def openvino_core() -> Any:
    """The one core of OpenVINO that this process keeps.

    A core gives the thread that loads it a stack for signals and takes it back when it ends: of several that end in another order
    than they began, a thread keeps a stack that is gone, and its next signal kills the process.
    """
    import openvino

    return openvino.Core()


def quantise_openvino(model: Any, program: ExportedProgram, calibration: Sequence[Tensor]) -> Any:
    """Quantises the linear layers of an OpenVINO model, statically as for ONNX.

    Large activations are shared with the weights first (Xiao et al., "SmoothQuant", ICML 2023, with its alpha of 0.5): the mean
    cosine of a student of a DINOv2 rises from 0.9966 to 0.9980. Quantising the patch embedding, too, would cost more than that.
    """
    import nncf
    from nncf.quantization import advanced_parameters as advanced
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.ERROR)
    layers = {node.name for node in program.graph.nodes if _is_layer(node)}
    names = [operation.get_friendly_name() for operation in model.get_ops()]
    others = [name for name in names if name.partition("/")[0] not in layers]  # begin with a node's name, a slash, and more
    with contextlib.redirect_stdout(io.StringIO()):  # which belongs to whoever called
        return nncf.quantize(
            model,
            nncf.Dataset([images.numpy() for images in calibration]),
            subset_size=len(calibration),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=others, validate=False),
            advanced_parameters=advanced.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.DISABLE,
                activations_range_estimator_params=RangeEstimatorParametersSet.MEAN_MINMAX,
                smooth_quant_alphas=advanced.AdvancedSmoothQuantParameters(matmul=0.5),
            ),
        )


def _is_layer(node: Node) -> bool:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return node.target is torch.ops.aten.linear.default and bool(stack) and stack[-1][1] == LINEAR
