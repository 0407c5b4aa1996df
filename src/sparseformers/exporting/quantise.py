"""int8: the linear layers of an exported file in whole numbers, calibrated on images.

Only layers with weights are quantised. Attention between tokens, RoIs and sampling stay in float32: they are a
small share of the cost, and RoIs need the digits.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

if TYPE_CHECKING:
    import onnx

LINEAR = "torch.nn.modules.linear.Linear"  # the mark of linear layers in the operators that they became
CLASSES = "pkg.torch.onnx.class_hierarchy"  # the field in which the translation to ONNX has that mark


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

    Static and not dynamic: dynamic ranges are found anew for each batch, so that an image's embedding would depend on the other
    images of its batch, and an index would not be the same twice. A range is the mean of those of the batches, so that no single
    outlier takes the digits of all other values.

    What a product gives is not quantised: it is summed in 32 bits, and its way to float is part of the product. What was tried
    beside it, such as weights without a sign, is in docs/lab/inference-tried.md.
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


def quantise_openvino(model: Any, program: ExportedProgram, calibration: Sequence[Tensor]) -> Any:
    """Quantises the linear layers of an OpenVINO model, statically as for ONNX.

    Large activations are shared with the weights first (Xiao et al., "SmoothQuant", ICML 2023, with its alpha of 0.5). On a
    student of a DINOv2 that brings the mean cosine from 0.9966 to 0.9980; quantising the patch embedding, too, would cost more
    than that.
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
