"""What a network costs: parameters, multiply-adds, and time on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sparseformers.modes import evaluation_mode, inference


def parameters(module: nn.Module) -> int:
    """How many parameters a module has, shared ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of all matrix products of one forward pass.

    Counted are convolutions, linear layers, batched products and the two products inside attention; not counted is what
    works element by element: bilinear sampling, normalisation, activations, softmax. Only shapes are computed (on PyTorch's
    meta device), so that a large network costs neither time nor memory.

    Args:
        module: unchanged by it.
        inputs: its positional arguments; a batch of one for the cost of one image.
    """
    return sum(_count_products(module, inputs).values())


def published_multiply_adds(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of convolutions and linear layers alone, which is what the papers' figures amount to.

    The products of two activations are left out. The papers' authors counted with fvcore. It does not see into fused
    attention, nor into v1's adaptive mixing, whose products add a bias in the same operation; it does count the mixing of the
    bootstrapped networks (0.2% to 0.6%), and normalisation and bilinear sampling as four or five operations per element (0.1%
    to 0.4%). Without these last two the figure follows from the layers alone, and is at most 0.9% below what was published, on
    all seven named sizes. The count of :func:`multiply_adds` is up to 0.9% above it on the bootstrapped ones, and 4% to 6% on
    those of v1.

    Args:
        module: unchanged by it.
        inputs: its positional arguments; a batch of one for the cost of one image.
    """
    return _of_layers(_count_products(module, inputs))


def _count_products(module: nn.Module, inputs: Sequence[Tensor]) -> Mapping[Any, int]:
    """Multiply-adds of each kind of matrix product, by PyTorch's operator."""
    # Each module's own once, whatever it is called: what has two names, functional_call would not put back.
    state = {
        f"{path}.{name}".removeprefix("."): _shape_of(value)
        for path, each in module.named_modules()
        for named in (each.named_parameters, each.named_buffers)
        for name, value in named(recurse=False, remove_duplicate=False)
    }
    # The fused attention kernels are unknown to the counter on some devices; the plain one is made of products it knows.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        functional_call(module, state, tuple(_shape_of(value) for value in inputs), tie_weights=False)
    return {operator: int(operations) // 2 for operator, operations in counter.get_flop_counts().get("Global", {}).items()}


def _of_layers(products: Mapping[Any, int]) -> int:
    """What of the products is an activation times a weight: products of two activations are batched ones (bmm)."""
    aten = torch.ops.aten
    return sum(products.get(operator, 0) for operator in (aten.convolution, aten.addmm, aten.mm))


def _shape_of(value: Tensor) -> Tensor:
    return torch.empty_like(value, device="meta", requires_grad=False)


@dataclass(frozen=True)
class Cost:
    """What a network is and does for one image, on any machine."""

    parameters: int
    """All its parameters."""
    multiply_adds: int
    """Of one image, see :func:`multiply_adds`."""
    size: tuple[int, int]
    """Height and width of that image in pixels."""
    published_multiply_adds: int | None = None
    """As the papers count, see :func:`published_multiply_adds`; None in records from before this was noted down."""


def measure_cost(module: nn.Module, size: tuple[int, int]) -> Cost:
    """Parameters and multiply-adds of a network that takes images B x 3 x H x W.

    Args:
        module: a SparseFormer or a teacher.
        size: H and W in pixels.
    """
    products = _count_products(module, (torch.empty(1, 3, *size, device="meta"),))
    return Cost(parameters(module), sum(products.values()), size, _of_layers(products))


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass on this machine."""

    batch: int
    """Images per pass."""
    milliseconds_median: float
    """Median over the repeats."""
    milliseconds_p05: float
    """5th percentile over the repeats."""
    milliseconds_p95: float
    """95th percentile over the repeats."""
    images_per_second: float
    """Batch over median time."""


def compare_latency(
    models: Mapping[str, Callable[[Tensor], Any]],
    sizes: Mapping[str, tuple[int, int]],
    *,
    batches: Sequence[int] = (1, 16),
    repeats: int = 10,
    warm_up: int = 3,
    device: torch.device | str,
    autocast: torch.dtype | None,
) -> dict[str, list[Latency]]:
    """Times networks in turn (A B A B ...) in one run, so that whatever else the machine does slows all of them alike.

    Args:
        models: networks on ``device`` by name, under inference mode and in evaluation mode (restored afterwards).
        sizes: height and width of each one's images in pixels.
        batches: batch sizes to time.
        repeats: timed passes of each network at each batch size.
        warm_up: passes before these, not timed.
        device: where the networks are.
        autocast: precision to run all of them in; None for their own.

    Returns:
        For each network, a latency per batch size, in the order of ``batches``.
    """
    if models.keys() != sizes.keys() or repeats < 1:
        raise ValueError(f"every model needs an image size, and repeats be at least 1: {[*models]}, {[*sizes]}, {repeats}")
    device = torch.device(device)
    latencies: dict[str, list[Latency]] = {name: [] for name in models}
    with evaluation_mode(*models.values()), inference(device, autocast):
        for batch in batches:
            images = {name: torch.rand(batch, 3, *sizes[name], generator=torch.Generator().manual_seed(0)) for name in models}
            images = {name: value.to(device) for name, value in images.items()}
            seconds: dict[str, list[float]] = {name: [] for name in models}
            for turn in range(warm_up + repeats):
                for name, model in models.items():
                    taken = _time(model, images[name], device)
                    if turn >= warm_up:
                        seconds[name].append(taken)
            for name in models:
                latencies[name].append(summarise_latency(batch, seconds[name]))
    return latencies


def _time(model: Callable[[Tensor], Any], images: Tensor, device: torch.device) -> float:
    """Seconds of one pass, until the device has done its work."""
    _synchronise(device)
    start = time.perf_counter()
    model(images)
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def summarise_latency(batch: int, seconds: Sequence[float]) -> Latency:
    """Median and percentiles of the times of passes.

    Args:
        batch: images per pass.
        seconds: of each pass.
    """
    shares = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    low, median, high = torch.quantile(torch.tensor(seconds, dtype=torch.float64), shares).tolist()
    return Latency(
        batch=batch,
        milliseconds_median=1000 * median,
        milliseconds_p05=1000 * low,
        milliseconds_p95=1000 * high,
        images_per_second=batch / median,
    )
