"""A step of a training in parts that can be run alone: to time them, and to hold the whole step against their sum."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sparseformers.data import Batch, to_bytes
from sparseformers.train.objective import Targets, coarse_targets, student_loss, teacher_targets
from sparseformers.train.step import TrainingStep


class StepInParts:
    """The parts of a step on one batch, as the step itself runs them: compiled where it does, in its precision.

    They come in order, because a backward pass needs a forward pass; the teacher stands alone. What is learnt is of no use.

    Args:
        step: of the training.
        images: B x 3 x H x W in [0, 1], on its device.
    """

    def __init__(self, step: TrainingStep, images: Tensor) -> None:
        self.step, self.images = step, images
        self.batch = Batch(to_bytes(images).cpu(), torch.arange(len(images)), ())
        self._answer = self._ask()
        if step.coarse is not None:
            self._answer = self._answer._replace(coarse=coarse_targets(step.coarse, images, step.autocast))
        self._loss = torch.zeros((), device=images.device)

    @property
    def parts(self) -> Mapping[str, Callable[[], object]]:
        """The parts by name, in the order in which they have to run."""
        return {"teacher": self._ask, "forward": self._forward, "backward": self._backward, "optimiser": self._learn}

    def whole(self) -> None:
        """The step itself, on the bytes that reading processes hand over, at the full learning rates."""
        self.step(self.batch, rate=1.0, samples=0)

    def _ask(self) -> Targets:
        step = self.step
        return teacher_targets(step.teacher, self.images, step.autocast, with_tokens=step.objective.token_weight > 0)

    def _forward(self) -> None:
        step = self.step
        self._loss = student_loss(step.student, self.images, self._answer, step.autocast, objective=step.objective)

    def _backward(self) -> None:
        self.step.accelerator.backward(self.step.scaler.scale(self._loss))
        self._loss = self._loss.detach()

    def _learn(self) -> None:
        self.step.learn(self._loss, len(self.images))


def seconds_of(
    work: Callable[[], object], device: torch.device | None = None, *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds that some work takes.

    Args:
        work: to do.
        device: that it runs on, which is waited for; None for work of the host alone.
        clock: in seconds; ``time.process_time`` leaves out what other programs take of the machine, for work of the host.
    """
    wait = torch.accelerator.synchronize if device is not None and device.type != "cpu" else None
    if wait is not None:
        wait(device)
    start = clock()
    work()
    if wait is not None:
        wait(device)
    return clock() - start
