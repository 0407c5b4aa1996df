"""Ways to run a model, by name: one file per library."""

from collections.abc import Mapping

from benchmarks.speed.backends.base import Backend, Conditions, Opening
from benchmarks.speed.backends.files import OnnxRuntime, OpenVino
from benchmarks.speed.backends.packed import Packed
from benchmarks.speed.backends.pytorch import PyTorchBackend

BACKENDS: Mapping[str, Backend] = {
    "eager": PyTorchBackend(compiled=False),
    "packed": Packed(),
    "compile": PyTorchBackend(compiled=True),
    "onnxruntime": OnnxRuntime(),
    "openvino": OpenVino(),
}
"""In the order of the report."""

__all__ = ["BACKENDS", "Backend", "Conditions", "Opening"]
