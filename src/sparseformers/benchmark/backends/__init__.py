"""Ways to run a model, by name: one file per library."""

from collections.abc import Mapping

from sparseformers.benchmark.backends.base import Backend, Conditions, Opening
from sparseformers.benchmark.backends.files import OnnxRuntime, OpenVino
from sparseformers.benchmark.backends.packed import Packed
from sparseformers.benchmark.backends.pytorch import PyTorchBackend

BACKENDS: Mapping[str, Backend] = {
    "eager": PyTorchBackend(compiled=False),
    "packed": Packed(),
    "compile": PyTorchBackend(compiled=True),
    "onnxruntime": OnnxRuntime(),
    "openvino": OpenVino(),
}
"""In the order of the report."""

__all__ = ["BACKENDS", "Backend", "Conditions", "Opening"]
