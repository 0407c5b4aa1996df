"""The machine's own rates: of a large matrix product in each precision, and of reading memory."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.speed.backends import Route
from benchmarks.speed.subjects import Subject
from sparseformers.config import PreprocessingConfig
from sparseformers.evaluation import Cost
from sparseformers.exporting.config import Precision

PRODUCT = "matrix product"
"""The name of the product among the models."""
SIDES = {"cpu": 2048, "cuda": 8192}
"""Of the matrices, by kind of device: large enough to keep it busy."""
BYTES_READ = 256 * 2**20
"""Far more than a cache holds."""
WEIGHT_BYTES: Mapping[Precision, int] = {"fp32": 4, "bf16": 2, "int8": 1}
"""Of each weight."""


class Product(nn.Module):
    """A linear layer whose weights are a square, and nothing else: the work that a machine does best.

    Args:
        side: rows and columns of the matrices.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.linear = nn.Linear(side, side, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x S x S -> B x S x S: the first channel times the weights, in float32."""
        return self.linear(images[:, 0]).float()


def product(side: int) -> Subject:
    """The product of matrices of so many rows and columns as a model, so that every backend runs it as it runs models."""
    network = Product(side).eval().requires_grad_(False)
    return Subject(
        PRODUCT,
        f"{side} x {side} x {side}",
        network,
        Cost(side**2, side**3, (side, side)),
        PreprocessingConfig(size=(side, side)),
    )


class Reading:
    """Reads a long stretch of memory once, as fast as PyTorch does."""

    def __init__(self, device: torch.device) -> None:
        self.values = torch.ones(BYTES_READ // 4, device=device)

    def __call__(self) -> object:
        return self.values.sum()


@dataclass(frozen=True)
class Floor:
    """The least time that a pass can take, and whether multiply-adds or reading the weights set it."""

    seconds: float
    by: str


@dataclass(frozen=True)
class Machine:
    """The machine's rates in the very turns in which models were timed, at one batch size.

    Seconds are turn by turn: of one product by precision, by the backend that was the fastest in that turn, and of reading
    :data:`BYTES_READ`.
    """

    product_seconds: Mapping[str, tuple[float, ...]]
    reading_seconds: tuple[float, ...]
    product_multiply_adds: int

    @property
    def bandwidth(self) -> float:
        """Bytes a second: the best of the turns, because whatever else reads memory takes away from it."""
        return BYTES_READ / min(self.reading_seconds)

    def rate(self, precision: str) -> float | None:
        """Multiply-adds a second; None if no backend had the product in this precision."""
        seconds = self.product_seconds.get(precision)
        return None if seconds is None else self.product_multiply_adds / statistics.median(seconds)

    def share(self, precision: str, multiply_adds: int, seconds: Sequence[float]) -> float | None:
        """The share of that rate which passes of so many multiply-adds reached: the median over the turns."""
        products = self.product_seconds.get(precision)
        if products is None:
            return None
        each = (multiply_adds / self.product_multiply_adds * best / own for best, own in zip(products, seconds, strict=True))
        return statistics.median(each)

    def floor(self, precision: Precision, multiply_adds: int, parameters: int) -> Floor | None:
        """The least time of a pass of so many multiply-adds, which reads each parameter at least once."""
        rate = self.rate(precision)
        if rate is None:
            return None
        computing = multiply_adds / rate
        reading = parameters * WEIGHT_BYTES[precision] / self.bandwidth
        return Floor(max(computing, reading), "multiply-adds" if computing >= reading else "weights")


def machine_of(seconds: Mapping[Route, tuple[float, ...]], reading: tuple[float, ...], multiply_adds: int) -> Machine:
    """The machine's rates from the seconds of the products by every backend, and of reading memory, turn by turn."""
    by_precision: dict[str, list[tuple[float, ...]]] = {}
    for route, turns in seconds.items():
        by_precision.setdefault(route.precision, []).append(turns)
    fastest = {precision: tuple(min(turn) for turn in zip(*each, strict=True)) for precision, each in by_precision.items()}
    return Machine(fastest, reading, multiply_adds)
