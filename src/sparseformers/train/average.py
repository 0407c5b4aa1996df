"""The exponential moving average of the weights that learn, which is measured and saved in the place of the newest ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sparseformers.train.processes.sharding import local, scattered


def decay_at(step: int, decay: float) -> float:
    """The decay of the average at a step, counted from 0: min(``decay``, (1 + step) / (10 + step)).

    The starting values would otherwise weigh in for 1 / (1 - ``decay``) steps: the first step keeps a tenth of them, and the
    average reaches back over about a tenth of the steps so far, until ``decay`` is the smaller one.
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """The exponential moving average of a student's learning parameters; those that are frozen need none.

    Processes that share a training each keep one: their weights are the same after each step, and so are their averages.

    Args:
        student: on its device, with ``requires_grad`` set by inheritance; the average starts as its weights.
        decay: share of the average that each step keeps once it has warmed up, in (0, 1), see :func:`decay_at`.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.newest = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
        self.weights = self._copy()

    def update(self) -> None:
        """Takes in the student's weights after a step of the optimiser."""
        blend = get_ema_multi_avg_fn(decay_at(self.steps, self.decay))
        weights = [local(average) for average in self.weights.values()]
        blend(weights, [local(parameter.detach()) for parameter in self.newest.values()], self.steps)
        self.steps += 1

    def install(self) -> None:
        """Puts the average into the student, for good."""
        self._put(self.weights)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Puts the average into the student for as long as the context lasts, then the newest weights again, to the bit."""
        newest = self._copy()
        self.install()
        try:
            yield
        finally:
            self._put(newest)

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs: ``steps``, and ``weights`` by name."""
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a state of :meth:`state_dict`; raises KeyError if a parameter is not in it."""
        for name, average in scattered(state["weights"], self.weights).items():
            self.weights[name].copy_(average)
        self.steps = int(state["steps"])

    def _copy(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.newest.items()}

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.newest.items():
            parameter.copy_(weights[name])
