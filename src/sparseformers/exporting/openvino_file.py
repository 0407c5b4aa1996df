"""A .xml file and a .bin file beside it, for OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from sparseformers.exporting.formats import Contents, FileFormat, Runner
from sparseformers.exporting.quantise import quantise_openvino

SECTION = "sparseformers"  # of the runtime information that has the metadata: ``model.get_rt_info(["sparseformers", NAME])``


class OpenVinoFile(FileFormat):
    """Input ``images``, output ``embedding`` or ``dense``.

    The weights are in a .bin file with the same stem, which has to stay beside it.
    """

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


def has_bfloat16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def openvino_core() -> Any:
    """The one core of OpenVINO that this process keeps.

    Its plugin for processors gives the thread that loads it a stack for signals and takes it back with the core: of several cores
    that end in another order than they began, a thread keeps a stack that is gone, and its next signal kills the process.
    """
    import openvino

    return openvino.Core()
