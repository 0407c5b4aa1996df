"""One step of the training: what is learnt from one batch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sparseformers.bootstrap.average import WeightAverage
from sparseformers.bootstrap.objective import Objective, alignment_loss
from sparseformers.bootstrap.optimiser import set_rates
from sparseformers.bootstrap.precision import autocast_dtype
from sparseformers.bootstrap.setup import Parts
from sparseformers.data import Batch, derived_seed


class StepFigures(NamedTuple):
    """What a step has to say; values stay on the device."""

    loss: Tensor
    """Of this process's share of the batch."""
    norm: Tensor
    """Of the gradient before clipping, without the part that moves RoIs."""


class NonFiniteLoss(Exception):  # noqa: N818  # the trainer makes an error with a remedy of it
    """The loss of a batch is not a finite number in some process; no step was made from it."""


class TrainingStep:
    """Makes the student learn from batches, one at a time.

    Args:
        parts: of the training.
        model: the student, or the wrapper that synchronises its gradients between processes.
        optimiser: of the student.
        accelerator: of the process.
        objective: how far the student is from its teacher.
        average: of the weights, where one is kept.
    """

    def __init__(
        self,
        parts: Parts,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        accelerator: Accelerator,
        *,
        objective: Objective,
        average: WeightAverage | None,
    ) -> None:
        self.parts, self.model, self.optimiser, self.accelerator = parts, model, optimiser, accelerator
        self.settings, self.objective, self.average = parts.settings, objective, average
        self.autocast = autocast_dtype(parts.precision)

    def __call__(self, batch: Batch, *, rate: float, samples: int) -> StepFigures:
        """One step of the optimiser.

        Args:
            batch: of at least one image.
            rate: share of the peak learning rates.
            samples: images seen before.

        Raises:
            NonFiniteLoss: before a step is made from it, in all processes.
        """
        set_rates(self.optimiser, rate)
        loss = self._loss(batch, self._tokens(samples))
        self.accelerator.backward(loss)
        norm = self._clip()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        return StepFigures(loss.detach(), norm)

    def _loss(self, batch: Batch, tokens: int | None) -> Tensor:
        device = self.parts.device
        images = batch.images.to(device, non_blocking=True)
        targets = None if batch.targets is None else batch.targets.to(device, non_blocking=True)
        loss = alignment_loss(
            self.model, self.parts.teacher, images, self.autocast, targets, objective=self.objective, tokens=tokens
        )
        if agreed(float(not math.isfinite(loss.item())), self.accelerator):
            raise NonFiniteLoss
        return loss

    def _tokens(self, samples: int) -> int | None:
        """How many tokens the step has: drawn from the seed and the samples seen, so that a resumed run agrees."""
        if not self.settings.elastic:
            return None
        own = self.parts.inheritance.student.config.focusing.tokens
        choices = sorted({own, *self.settings.elastic})
        return choices[derived_seed(self.settings.seed, samples) % len(choices)]

    def _clip(self) -> Tensor:
        """Clips the gradient, and returns its norm before that, without the part that moves RoIs.

        That part is clipped for itself: the gradient of sampling coordinates is now and then so large that all the others
        would be scaled down to nothing with it.
        """
        groups = self.optimiser.param_groups
        moving = [parameter for group in groups if group["name"] == "rois" for parameter in group["params"]]
        others = [parameter for group in groups if group["name"] != "rois" for parameter in group["params"]]
        if moving:
            self.accelerator.clip_grad_norm_(moving, self.settings.clip_norm)
        norm: Tensor = self.accelerator.clip_grad_norm_(others, self.settings.clip_norm)
        return norm


def agreed(value: float, accelerator: Accelerator) -> float:
    """The largest of all processes' values, so that all of them take the same decisions from it."""
    if accelerator.num_processes == 1:
        return value
    return float(accelerator.gather(torch.tensor([value], device=accelerator.device)).max())
