"""Ways to run a network that is only to embed: PyTorch eager, compiled or with packed weights, and exported files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.evaluation.rebuilt import RebuiltTeacher
from sparseformers.inference import fold_embedding, pack_weights
from sparseformers.model import SparseFormer
from sparseformers.modes import inference
from sparseformers.teachers import Teacher

Backend = Literal["eager", "compile", "packed", "onnxruntime", "openvino"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
IN_FLOAT32: frozenset[Backend] = frozenset({"packed", "onnxruntime", "openvino"})  # on processors only

Runner = Callable[[Tensor], Tensor]  # images B x 3 x H x W in [0, 1] to embeddings B x D; may return before the device has done


class Embedding(nn.Module):
    """From images to embeddings, and nothing else that a network gives."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1] -> B x D, float32."""
        return cast(Tensor, self.network(images).embedding).float()


def prepare(
    network: nn.Module, backend: Backend, *, size: tuple[int, int], precision: str, device: torch.device, folder: Path
) -> Callable[[int], Runner]:
    """Makes a network in evaluation mode (which stays as it is) ready for a backend: a function that opens it for a batch size.
    All backends but eager fold a student for its embedding first, which is the same function. Exported files go to ``folder``,
    which has to last as long as the runners. Raises ConfigError or MissingExtraError as :func:`check_backend`.
    """
    check_backend(backend, precision=precision, device=device)
    if backend in ("onnxruntime", "openvino"):
        return _exported(network, backend, size=size, folder=folder)
    run: nn.Module = Embedding(network)
    if backend != "eager" and isinstance(network, SparseFormer):
        run = fold_embedding(network)
    if backend == "packed":
        run = pack_weights(run)
    elif precision == "bf16":
        run = cast_layers(copy.deepcopy(run))
    dtype = torch.bfloat16 if precision == "bf16" else None
    return lambda _: in_inference(compile_network(run, device) if backend == "compile" else run, device, dtype)


def check_backend(backend: Backend, *, precision: str, device: torch.device) -> None:
    """Raises ConfigError or MissingExtraError unless a backend can run here in this precision."""
    if backend in IN_FLOAT32:
        if device.type != "cpu":
            raise ConfigError(f"The backend {backend} runs on processors only, not on {device.type}.", "Choose eager or compile.")
        if precision != "fp32":
            raise ConfigError(f"The backend {backend} is timed in float32 only.", "Give --precision fp32.")
    if backend == "packed" and not torch.backends.mkldnn.is_available():
        raise ConfigError("This PyTorch was built without oneDNN, for which weights are packed.", "Choose another --backend.")
    if backend in ("onnxruntime", "openvino"):
        for package in ("onnx", "onnxscript", "onnxruntime") if backend == "onnxruntime" else ("openvino",):
            MissingExtraError.require(package, "export" if backend == "onnxruntime" else "openvino")


def in_inference(run: Callable[[Tensor], Any], device: torch.device, autocast: torch.dtype | None) -> Runner:
    """The same under inference mode, in the precision of ``autocast``."""

    def embed(images: Tensor) -> Tensor:
        with inference(device, autocast):
            return cast(Tensor, run(images))

    return embed


def compile_network(network: nn.Module, device: torch.device) -> Callable[[Tensor], Any]:
    """A network compiled for one shape, as one graph; on CUDA with CUDA graphs.
    PyTorch keeps compiled code with a function's code, and runs further variants uncompiled after eight. All networks here have
    one class, so that each gets a function with code of its own.
    """

    def forward(images: Tensor) -> Any:
        return network(images)

    own = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    if device.type != "cuda":
        return torch.compile(own, dynamic=False, fullgraph=True)
    graphed = torch.compile(own, dynamic=False, fullgraph=True, mode="reduce-overhead")

    def replay(images: Tensor) -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # what earlier graphs gave is not needed any more, whichever network's
        return graphed(images)

    return replay


def cast_layers(network: nn.Module) -> nn.Module:
    """Casts the weights of linear layers and convolutions to bfloat16, which autocast would do anew in each pass."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.bfloat16()
    return network


def _exported(network: nn.Module, backend: Backend, *, size: tuple[int, int], folder: Path) -> Callable[[int], Runner]:
    """A network in a file that ``export`` would write, opened by its runtime with as many threads as PyTorch has."""
    from sparseformers.exporting.config import ExportConfig
    from sparseformers.exporting.formats import trace
    from sparseformers.exporting.network import EmbeddingNetwork
    from sparseformers.exporting.onnx_file import open_onnx, write_onnx
    from sparseformers.exporting.openvino_file import open_openvino, write_openvino

    # A teacher is made of parts that all formats can express, with positions resampled once.
    rebuilt = RebuiltTeacher(network) if isinstance(network, Teacher) else network
    portable: nn.Module = EmbeddingNetwork(network) if isinstance(network, SparseFormer) else Embedding(rebuilt)
    as_onnx = backend == "onnxruntime"
    settings = ExportConfig(format="onnx" if as_onnx else "openvino", size=f"{size[0]}x{size[1]}")
    path = folder / ("model.onnx" if as_onnx else "model.xml")
    (write_onnx if as_onnx else write_openvino)(trace(portable.eval(), settings, size), path)
    opened = open_onnx if as_onnx else open_openvino
    return lambda batch: opened(path, batch=batch, threads=torch.get_num_threads())
