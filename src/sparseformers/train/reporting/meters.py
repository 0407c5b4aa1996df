"""Running figures of a training."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
NO_NORMS: Mapping[str, Tensor] = MappingProxyType({})
"""Of steps whose gradient is not told by group."""


class Meters:
    """Loss, gradient norms, images a second and the share of time spent waiting for data, since the last reading.

    Args:
        device: where losses are computed, and whose memory is told; the figures themselves are summed in the host's memory.
        every: steps between two readings; a number and not a time, so that a run that was stopped and resumed has the same.
    """

    def __init__(self, device: torch.device, *, every: int = 10) -> None:
        self.device = device
        self.every = every
        self.images = 0
        self.non_finite = 0
        self.overflows = 0
        self.total_seconds = 0.0
        self.total_waited = 0.0
        self._clear()

    def _clear(self) -> None:
        self._loss = torch.zeros(())
        self._norm = torch.zeros(())
        self._norms: dict[str, Tensor] = {}
        self._steps = 0
        self._images = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    def timed(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Passes batches on and measures how long they were waited for."""
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(iterator, None)
            self._waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def step(self, loss: Tensor, norm: Tensor | None, images: int, *, norms: Mapping[str, Tensor] = NO_NORMS) -> None:
        """Adds one optimiser step.

        Args:
            loss: of the step, in the host's memory as the norms are.
            norm: of the gradient before clipping.
            images: seen in it, over all processes.
            norms: of the gradient before clipping by group of parameters.
        """
        self._loss += loss.detach()
        if norm is not None:
            self._norm += norm.detach()
        for name, value in norms.items():
            self._norms[name] = self._norms.get(name, torch.zeros(())) + value.detach()
        self._steps += 1
        self._count(images)

    def skipped(self, images: int, *, overflow: bool) -> None:
        """Adds a step that was skipped: it takes time and images, but has no loss.

        Args:
            images: seen in it, over all processes.
            overflow: whether it was float16's scaler looking for its scale; otherwise something was not a finite number.
        """
        self.overflows += overflow
        self.non_finite += not overflow
        self._count(images)

    def _count(self, images: int) -> None:
        self._images += images
        self.images += images

    def due(self) -> bool:
        """Whether it is time to read."""
        return self._steps >= self.every

    def read(self) -> dict[str, float]:
        """The figures since the last reading, and how many steps were skipped so far; starts over."""
        elapsed = time.perf_counter() - self._since
        figures = {
            "loss": round(float(self._loss) / self._steps, 7),
            "gradient_norm": round(float(self._norm) / self._steps, 4),
            **{f"gradient_norm_{name}": round(float(value) / self._steps, 4) for name, value in self._norms.items()},
            "images_per_second": round(self._images / elapsed, 2),
            "data_wait": round(self._waited / elapsed, 4),
            "peak_memory_gib": round(peak_memory(self.device) / 2**30, 2),
            "non_finite_steps": self.non_finite,
            "overflow_steps": self.overflows,
        }
        self.total_seconds += elapsed
        self.total_waited += self._waited
        self._clear()
        return figures

    def state_dict(self) -> dict[str, Any]:
        """What the steps since the last reading add up to, but for times: a resumed run goes on summing."""
        return {
            "loss": float(self._loss),
            "norm": float(self._norm),
            "norms": {name: float(value) for name, value in self._norms.items()},
            "steps": self._steps,
            "images": self._images,
            "non_finite": self.non_finite,
            "overflows": self.overflows,
            "total_images": self.images,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a state of :meth:`state_dict`."""
        self._loss.fill_(state["loss"])
        self._norm.fill_(state["norm"])
        self._norms = {name: torch.tensor(value) for name, value in state["norms"].items()}
        self._steps, self._images = int(state["steps"]), int(state["images"])
        self.images = int(state["total_images"])
        self.non_finite, self.overflows = int(state["non_finite"]), int(state["overflows"])

    def data_wait(self) -> float:
        """Share of the whole training spent waiting for data."""
        return self.total_waited / self.total_seconds if self.total_seconds else 0.0


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: on the accelerator, or by this process and its largest data worker."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
