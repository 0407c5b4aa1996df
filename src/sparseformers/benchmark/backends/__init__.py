"""Ways to run a model, by name: one file per library."""

from collections.abc import Mapping

from sparseformers.benchmark.backends.base import Backend, Conditions, Opening
from sparseformers.benchmark.backends.files import OnnxRuntime, OpenVino
from sparseformers.benchmark.backends.pytorch import PyTorchBackend

BACKENDS: Mapping[str, Backend] = {
    "eager": PyTorchBackend(compiled=False),
    "compile": PyTorchBackend(compiled=True),
    # Another network that computes the same is another backend: PyTorchBackend(compiled=..., network=..., finish=...).
    "onnxruntime": OnnxRuntime(),
    "openvino": OpenVino(),
}
"""In the order of the report."""

__all__ = ["BACKENDS", "Backend", "Conditions", "Opening"]
