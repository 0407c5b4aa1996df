"""One step of the training: what is learnt from one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Literal, NamedTuple, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sparseformers.data import Batch, derived_seed, images_on
from sparseformers.inheritance.fitted import CoarseTokens
from sparseformers.model import SparseFormerOutput
from sparseformers.modes import autocast_dtype
from sparseformers.processes import agreed, summed
from sparseformers.teachers import Teacher
from sparseformers.train.compiling import CompiledForBatches, compile_errors
from sparseformers.train.gradients import clip, fetched, group_norms, total_norm
from sparseformers.train.objective import Objective, alignment_loss
from sparseformers.train.optimiser import set_rates
from sparseformers.train.setup import Parts

Outcome = Literal["made", "overflow", "non_finite"]
"""What became of a step, in all processes alike. Only ``made`` ones change weights. An ``overflow`` is float16's scaler looking
for its scale; ``non_finite`` means that the loss or the gradient is not a finite number, which no scale would mend."""
OUTCOMES: tuple[Outcome, ...] = ("made", "overflow", "non_finite")
SMALLEST_SCALE = 1.0
"""At this scale of the loss or below, float16 has the range that it has without one, so an overflow is not the scaler's."""


class StepFigures(NamedTuple):
    """What a step has to say; values are in the host's memory."""

    outcome: Outcome
    """Whether the step was made."""
    loss: Tensor
    """Mean over the images of the batch, over all processes."""
    norm: Tensor
    """Of the gradient before clipping, without the part that moves RoIs."""
    norms: dict[str, Tensor]
    """The same by group of parameters, that part included."""
    images: int
    """How many could be read, over all processes."""


class TrainingStep:
    """Makes the student learn from batches, one at a time.

    Args:
        parts: of the training.
        model: the student, or the wrapper that synchronises its gradients between processes.
        optimiser: of the student.
        accelerator: of the process.
        objective: how far the student is from its teacher.
        coarse: who gives its dense targets, if it has any.
        scaler: of the loss, see :func:`~sparseformers.modes.gradient_scaler`; whoever gives it keeps its state.
    """

    def __init__(
        self,
        parts: Parts,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        accelerator: Accelerator,
        *,
        objective: Objective,
        scaler: torch.amp.GradScaler,
        coarse: CoarseTokens | None = None,
    ) -> None:
        self.parts, self.model, self.optimiser, self.accelerator = parts, model, optimiser, accelerator
        self.settings, self.objective, self.coarse = parts.settings, objective, coarse
        self.autocast = autocast_dtype(parts.precision)
        self.scaler = scaler
        self.student: Callable[[Tensor, int | None], SparseFormerOutput] = model
        self.teacher = parts.teacher
        if self.settings.optimisation.compile:
            learning = self.settings.optimisation
            part = -(-learning.batch_size // (accelerator.num_processes * learning.accumulate))
            self.student = CompiledForBatches(model, part)
            self.teacher = cast(Teacher, CompiledForBatches(parts.teacher, part))

    def __call__(self, batch: Batch, *, rate: float, samples: int, progress: float = 1.0) -> StepFigures | None:
        """One step of the optimiser on the mean over the images of all processes, or None if nobody could read any.

        Where something is not finite in some process, no process changes anything; figures say so.

        Args:
            batch: this process's share, which may be empty.
            rate: share of the peak learning rates.
            samples: images seen before.
            progress: share of the training that is behind, in [0, 1].

        Raises:
            ConfigError: if the networks were to be compiled and cannot be.
        """
        images = int(summed(len(batch.images), self.accelerator))
        if images == 0:
            return None
        set_rates(self.optimiser, rate)
        with compile_errors():
            loss = self._backward(batch, self.objective.at(progress), self._tokens(samples), images)
        return self.learn(loss, images)

    def learn(self, loss: Tensor, images: int) -> StepFigures:
        """What follows the backward pass: clips the gradient, makes the step of the optimiser, and drops the gradient.

        Args:
            loss: mean over the images of the batch, over all processes, as a scalar on the device.
            images: how many, over all processes.
        """
        self.scaler.unscale_(self.optimiser)
        loss, norms = fetched(loss, group_norms(self.optimiser))
        norm, outcome = total_norm(norms), self._outcome(loss, norms)
        if outcome == "made":
            norm = clip(self.optimiser, norms, self.settings.optimisation.clip_norm)
            self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return StepFigures(outcome, loss, norm, norms, images)

    def _outcome(self, loss: Tensor, norms: Mapping[str, Tensor]) -> Outcome:
        """Whether to make the step, agreed between all processes: the worst of what they found."""
        if not math.isfinite(loss.item()):
            found: Outcome = "non_finite"
        elif math.isfinite(total_norm(norms).item()):
            found = "made"
        else:
            found = "overflow" if self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_SCALE else "non_finite"
        return OUTCOMES[int(agreed(float(OUTCOMES.index(found)), self.accelerator))]

    def _backward(self, batch: Batch, objective: Objective, tokens: int | None, images: int) -> Tensor:
        """The gradient of the mean loss over ``images``, those of all processes; returns that mean.

        Wrappers average gradients over the processes, so each loss counts by its share of the images times the processes.
        They synchronise within forward and backward, so each process makes as many of both, if need be for nothing.
        """
        processes = self.accelerator.num_processes
        total = torch.zeros((), device=self.parts.device)
        parts = split(batch, self.settings.optimisation.accumulate)
        for number, part in enumerate(parts, start=1):
            count = len(part.images)
            if count == 0 and processes == 1:
                continue
            with nullcontext() if number == len(parts) else self.accelerator.no_sync(self.model):
                loss = self._loss(part if count else stand_in(self.parts), objective, tokens)
                self.accelerator.backward(self.scaler.scale(loss * (count * processes / images)))
            if count:
                total += loss.detach() * count
        return self.accelerator.reduce(total, "sum") / images

    def _loss(self, batch: Batch, objective: Objective, tokens: int | None) -> Tensor:
        device = self.parts.device
        images = images_on(device, batch.images)
        targets = None if batch.targets is None else batch.targets.to(device, non_blocking=True)
        return alignment_loss(
            *(self.student, self.teacher, images, self.autocast, targets),
            objective=objective,
            coarse=self.coarse,
            tokens=tokens,
        )

    def _tokens(self, samples: int) -> int | None:
        """How many tokens the step has: drawn from the seed and the samples seen, so that a resumed run agrees."""
        if not self.settings.network.elastic:
            return None
        own = self.parts.inheritance.student.config.focusing.tokens
        choices = sorted({own, *self.settings.network.elastic})
        return choices[derived_seed(self.settings.optimisation.seed, samples) % len(choices)]


def split(batch: Batch, count: int) -> list[Batch]:
    """The readable views of a batch in ``count`` parts whose sizes differ by one at most; some may be empty."""
    if count == 1:
        return [batch]
    targets = [None] * count if batch.targets is None else batch.targets.tensor_split(count)
    parts = zip(batch.images.tensor_split(count), batch.indices.tensor_split(count), targets, strict=True)
    return [Batch(images, indices, (), part_targets) for images, indices, part_targets in parts]


def stand_in(parts: Parts) -> Batch:
    """One image of noise for a process that has none to learn from: it has to take part in the step, and weighs nothing."""
    image = torch.rand(1, 3, *parts.size, generator=torch.Generator().manual_seed(0))
    return Batch(image, torch.empty(0, dtype=torch.int64), ())
