"""A .onnx file, for ONNX Runtime and its kin."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from sparseformers.errors import ConfigError
from sparseformers.evaluation import parameters
from sparseformers.exporting.config import Precision
from sparseformers.exporting.formats import LINEAR, Contents, FileFormat, Runner

if TYPE_CHECKING:
    import onnx

CLASSES = "pkg.torch.onnx.class_hierarchy"  # the field in which the translation to ONNX has the mark of linear layers
OPSET = 20  # the first one that has GELU as an operator
MOST_BYTES = 2_000_000_000  # Protocol Buffers hold no more weights in one file


class OnnxFile(FileFormat):
    """Input ``images``, output ``embedding`` or ``dense``; metadata_props say what it is."""

    suffix = ".onnx"
    libraries: Mapping[str, str] = {"onnx": "export", "onnxscript": "export", "onnxruntime": "export"}
    lacks: Mapping[Precision, str] = {"bf16": "ONNX Runtime has no products in bfloat16 on processors"}

    def write(self, contents: Contents, path: Path) -> None:
        student = contents.student
        if 4 * parameters(student) > MOST_BYTES:
            size = f"{parameters(student) / 1e6:.0f}M"
            problem = f"The student's {size} parameters do not fit into one .onnx file, which holds 2 GB."
            raise ConfigError(problem, "Use --format openvino or torch-export.")
        of_file: dict[str, Any] = {"metadata": contents.metadata, "calibration": contents.calibration}
        write_onnx(contents.program(), path, output=contents.settings.output, **of_file)

    def open(self, path: Path) -> Runner:
        return open_onnx(path)


def write_onnx(
    program: ExportedProgram,
    path: Path,
    *,
    output: str = "embedding",
    metadata: Mapping[str, str] | None = None,
    calibration: Sequence[Tensor] = (),
) -> None:
    """Writes a program from ``images`` to ``output`` as a file with ``metadata``, quantised where there is ``calibration``."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), only_errors("torch.onnx"):
        warnings.simplefilter("ignore")
        translated = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.scaled_dot_product_attention.default: _attention},
            input_names=["images"],
            output_names=[output],
            external_data=False,
            verbose=False,
        )
    assert translated is not None
    translated.model.producer_name = "sparseformers"
    if metadata:
        translated.model.producer_version = metadata["sparseformers"]
        translated.model.metadata_props.update(metadata)
    translated.save(path, external_data=False)
    if calibration:
        quantise_onnx(path, calibration)


def open_onnx(path: Path, *, batch: int | None = None, threads: int | None = None) -> Runner:
    """Opens a file in ONNX Runtime on the CPU, for any number of images or for ``batch`` of them at a time."""
    session = onnx_session(path, batch=batch, threads=threads)
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def onnx_session(path: Path, *, batch: int | None = None, threads: int | None = None, trace: Path | None = None) -> Any:
    """A session as for :func:`open_onnx`; to profile it, ``trace`` is how the name of the profile's file begins."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if batch is not None:
        options.add_free_dimension_override_by_name("batch", batch)
    if threads is not None:
        options.intra_op_num_threads = threads
        # Waiting threads would take the processor from whoever comes next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Attention in ONNX, as far as models here use it: two products and a softmax, B x heads x T x C each.

    PyTorch's translation turns the keys by way of three axes, whose sizes a file for any batch computes anew in each block; of
    this one ONNX Runtime makes a product that takes the keys turned and the scores scaled.
    """
    from onnxscript import opset20 as op

    if dropout_p or is_causal or enable_gqa or (attn_mask is not None and attn_mask.dtype != query.dtype):
        raise ValueError("Attention with dropout, a causal or boolean mask, or shared keys is not written into ONNX files here.")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = op.MatMul(op.Mul(query, op.Constant(value_float=factor)), op.Transpose(key, perm=[0, 1, 3, 2]))
    scores = scores if attn_mask is None else op.Add(scores, attn_mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


@contextlib.contextmanager
def only_errors(logger: str | None) -> Iterator[None]:
    """Keeps a logger, or that of all, from telling anything but errors."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def quantise_onnx(path: Path, calibration: Sequence[Tensor]) -> None:
    """Quantises the linear layers of a .onnx file in place: weights by channel, activations by the ranges of the calibration.

    Dynamic ranges are found anew for each batch: an image's embedding would depend on the other images of its batch. These are
    means over the batches, so that no single outlier takes the digits of all other values. What a product gives is summed in 32
    bits and not quantised. What was tried beside it, such as weights without a sign, is in docs/lab/inference-tried.md.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    fold_transposed_weights(model)
    onnx.save(model, path)
    batches = ({"images": images.numpy()} for images in calibration)
    with only_errors(None):  # it recommends a step that the translation has done already
        quantize_static(
            path,
            path,
            SimpleNamespace(get_next=lambda: next(batches, None)),  # the interface of a CalibrationDataReader
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_quantize=linear_layers(model),
            extra_options={"CalibMovingAverage": True, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)


def linear_layers(model: onnx.ModelProto) -> list[str]:
    """The names of the products that linear layers became."""
    weights = {weight.name for weight in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights]
    marks = [next((entry.value for entry in node.metadata_props if entry.key == CLASSES), "") for node in products]
    return [node.name for node, mark in zip(products, marks, strict=True) if LINEAR in mark]


def fold_transposed_weights(model: onnx.ModelProto) -> None:
    """Transposes weights for good where the file does it each time, as for layers that are used more than once."""
    from onnx import numpy_helper

    weights = {weight.name: weight for weight in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        axes = next((list(entry.ints) for entry in node.attribute if entry.name == "perm"), None)
        turned: Any = np.ascontiguousarray(np.transpose(numpy_helper.to_array(weights[node.input[0]]), axes))
        model.graph.initializer.append(numpy_helper.from_array(turned, node.output[0]))
        model.graph.node.remove(node)
    used = {name for node in model.graph.node for name in node.input}
    for weight in [weight for weight in model.graph.initializer if weight.name not in used]:
        model.graph.initializer.remove(weight)
