"""Running figures of a training; values stay on the device until they are read."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


class Meters:
    """Loss, gradient norm, images a second and the share of time spent waiting for data, since the last reading.

    Args:
        device: where losses are computed.
        every: steps between two readings; a number and not a time, so that a run that was stopped and resumed has the same.
    """

    def __init__(self, device: torch.device, *, every: int = 10) -> None:
        self.device = device
        self.every = every
        self.images = 0
        self.total_seconds = 0.0
        self.total_waited = 0.0
        self._clear()

    def _clear(self) -> None:
        self._loss = torch.zeros((), device=self.device)
        self._norm = torch.zeros((), device=self.device)
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

    def step(self, loss: Tensor, norm: Tensor | None, images: int) -> None:
        """Adds one optimiser step.

        Args:
            loss: of the step, on the device.
            norm: of the gradient before clipping.
            images: seen in it, over all processes.
        """
        self._loss += loss.detach()
        if norm is not None:
            self._norm += norm.detach()
        self._steps += 1
        self._images += images
        self.images += images

    def due(self) -> bool:
        """Whether it is time to read."""
        return self._steps >= self.every

    def read(self) -> dict[str, float]:
        """The figures since the last reading; starts over."""
        elapsed = time.perf_counter() - self._since
        figures = {
            "loss": round(float(self._loss) / self._steps, 7),
            "gradient_norm": round(float(self._norm) / self._steps, 4),
            "images_per_second": round(self._images / elapsed, 2),
            "data_wait": round(self._waited / elapsed, 4),
            "peak_memory_gib": round(peak_memory(self.device) / 2**30, 2),
        }
        self.total_seconds += elapsed
        self.total_waited += self._waited
        self._clear()
        return figures

    def state_dict(self) -> dict[str, float]:
        """What the steps since the last reading add up to, but for times: a resumed run goes on summing."""
        return {
            "loss": float(self._loss),
            "norm": float(self._norm),
            "steps": self._steps,
            "images": self._images,
            "total_images": self.images,
        }

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Takes over a state of :meth:`state_dict`."""
        self._loss.fill_(state["loss"])
        self._norm.fill_(state["norm"])
        self._steps, self._images = int(state["steps"]), int(state["images"])
        self.images = int(state["total_images"])

    def data_wait(self) -> float:
        """Share of the whole training spent waiting for data."""
        return self.total_waited / self.total_seconds if self.total_seconds else 0.0


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: on the accelerator, or by this process and its largest data worker."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
