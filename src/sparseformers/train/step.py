"""One step of the training: forward, backward, clipping, and the optimiser's step, unless something is not a finite number."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sparseformers.data import Batch, derived_seed, images_on
from sparseformers.errors import ConfigError, NonFiniteLossError
from sparseformers.files import write_text
from sparseformers.inheritance.fitted import CoarseTokens
from sparseformers.model import SparseFormerOutput
from sparseformers.modes import autocast_dtype
from sparseformers.processes import agreed, summed
from sparseformers.train.objective import AnyTeacher, Objective, Targets, alignment_loss
from sparseformers.train.optimiser import set_rates
from sparseformers.train.setup import Parts

Outcome = Literal["made", "overflow", "non_finite"]
"""The outcome of a step, in all processes alike. Only ``made`` ones change weights. An ``overflow`` is float16's scaler looking
for its scale; ``non_finite`` means that the loss or the gradient is not a finite number, which no scale would mend."""
OUTCOMES: tuple[Outcome, ...] = ("made", "overflow", "non_finite")
SMALLEST_SCALE = 1.0  # of the loss: from here down float16 has the range that it has without, so an overflow is not the scaler's
IN_A_ROW = 3  # skipped steps, one after the other, that end a run
COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch")  # which the errors of ``torch.compile`` come from
LOGGER = logging.getLogger("sparseformers")


class StepFigures(NamedTuple):
    """The figures of a step, in the host's memory."""

    outcome: Outcome
    loss: Tensor  # mean over the images of the batch, over all processes
    norm: Tensor  # of the gradient before clipping
    norms: dict[str, Tensor]  # the same by group of parameters
    images: int  # that could be read, over all processes


class TrainingStep:
    """Makes the student, or the wrapper that synchronises its gradients between processes, learn from batches, one at a time."""

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
        self.settings, self.objective, self.coarse, self.scaler = parts.settings, objective, coarse, scaler
        self.autocast = autocast_dtype(parts.precision)
        self.student: Callable[..., SparseFormerOutput] = model
        self.teacher: AnyTeacher = parts.telling_teacher()
        learning = self.settings.optimisation
        if learning.compile:
            part = -(-learning.batch_size // (accelerator.num_processes * learning.accumulate))
            self.student = CompiledForBatches(model, part)
            self.teacher = CompiledForBatches(self.teacher, part)

    def __call__(self, batch: Batch, *, rate: float, samples: int, progress: float = 1.0) -> StepFigures | None:
        """One step of the optimiser on the mean over the images of all processes, or None if nobody could read any.

        ``batch`` is this process's share, which may be empty; ``rate`` a share of the peak learning rates; ``samples`` images
        were seen before; ``progress`` is in [0, 1]. Raises ConfigError if the networks cannot be compiled as asked.
        """
        images = int(summed(len(batch.images), self.accelerator))
        if images == 0:
            return None
        set_rates(self.optimiser, rate)
        with compile_errors():
            loss = self._backward(batch, self.objective.at(progress), self._tokens(samples), images)
        return self.learn(loss, images)

    def learn(self, loss: Tensor, images: int) -> StepFigures:
        """Follows the backward pass: clips the gradient, makes the step, drops the gradient; ``loss`` is on the device."""
        self.scaler.unscale_(self.optimiser)
        loss, norms = fetched(loss, group_norms(self.optimiser))
        norm = total_norm(norms)
        outcome = self._outcome(loss, norm)
        if outcome == "made":
            clip(self.optimiser, norm, self.settings.optimisation.clip_norm)
            self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return StepFigures(outcome, loss, norm, norms, images)

    def _outcome(self, loss: Tensor, norm: Tensor) -> Outcome:
        """Whether to make the step, agreed between all processes: the worst of what they found."""
        if not math.isfinite(loss.item()):
            found: Outcome = "non_finite"
        elif math.isfinite(norm.item()):
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
                loss = self._loss(part if count else Batch(self.parts.noise, torch.empty(0), ()), objective, tokens)
                self.accelerator.backward(self.scaler.scale(loss * (count * processes / images)))
            if count:
                total += loss.detach() * count
        return self.accelerator.reduce(total, "sum") / images

    def _loss(self, batch: Batch, objective: Objective, tokens: int | None) -> Tensor:
        device, targets = self.parts.device, None
        if batch.targets is not None:
            others = (batch.tokens, batch.attention_maps)
            of_places, maps = (None if each is None else each.to(device, non_blocking=True) for each in others)
            targets = Targets(batch.targets.to(device, non_blocking=True), of_places, attention_map=maps)
        asked: dict[str, Any] = {"tokens": tokens, "grid": self.parts.teacher.grid if self.settings.network.dense else None}
        given = (self.student, self.teacher, images_on(device, batch.images), self.autocast, targets)
        return alignment_loss(*given, objective=objective, coarse=self.coarse, **asked)

    def _tokens(self, samples: int) -> int | None:
        """The number of tokens of the step: drawn from the seed and the samples seen, so that a resumed run agrees."""
        if not self.settings.network.elastic:
            return None
        choices = sorted({self.parts.inheritance.student.config.focusing.tokens, *self.settings.network.elastic})
        return choices[derived_seed(self.settings.optimisation.seed, samples) % len(choices)]


class NonFiniteSteps:
    """The latest steps that all skipped as a loss or gradient was not finite; ``path`` takes their images if the run stops."""

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path, self.accelerator = path, accelerator
        self._files: list[list[str]] = []

    def made(self) -> None:
        """Notes a step that was made, after which a row begins anew."""
        self._files.clear()

    def skipped(self, files: Sequence[str], *, samples: int) -> None:
        """Notes a step on ``files``, this process's part of a batch that all skip; NonFiniteLossError for the third in a row."""
        self._files.append(list(gather_object(list(files))))
        if self.accelerator.is_main_process:
            LOGGER.warning("%d images: a loss or gradient is not a finite number, so the step was skipped", samples)
        if len(self._files) < IN_A_ROW:
            return
        if self.accelerator.is_main_process:
            write_text(self.path, "".join(f"{file}\n" for files in self._files for file in files))
        problem = f"The loss or its gradient was not a finite number {IN_A_ROW} steps in a row, after {samples:,} images, "
        problem += "so training stopped; no step was made from them."
        remedy = f"Look at the images listed in '{self.path}', lower --lr, or use --precision fp32; then resume the run."
        raise NonFiniteLossError(problem, remedy)

    def state_dict(self) -> dict[str, Any]:
        """The files of the row so far; the same in all processes."""
        return {"files": [list(files) for files in self._files]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._files = [list(files) for files in state["files"]]


def split(batch: Batch, count: int) -> list[Batch]:
    """The readable views of a batch in ``count`` parts whose sizes differ by one at most; some may be empty."""
    if count == 1:
        return [batch]
    columns = (batch.images, batch.indices, batch.targets, batch.attention_maps, batch.tokens)
    parts = ([None] * count if column is None else column.tensor_split(count) for column in columns)
    return [Batch(images, indices, (), *known) for images, indices, *known in zip(*parts, strict=True)]


def group_norms(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The norm of each group's (unscaled) gradient by its name, float32 on the device; groups that share a name are one."""
    named: dict[str, list[nn.Parameter]] = {}
    for group in optimiser.param_groups:
        named.setdefault(group["name"], []).extend(group["params"])
    norms: dict[str, Tensor] = {}
    for name, parameters in named.items():
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros((), device=parameters[0].device)
        norms[name] = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return norms


def total_norm(norms: Mapping[str, Tensor]) -> Tensor:
    """The norm of all groups together; 0 of none."""
    return torch.linalg.vector_norm(torch.stack(list(norms.values()))) if norms else torch.zeros(())


def fetched(loss: Tensor, norms: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """A loss and norms in the host's memory, by one copy: a device that computes ahead is waited for once and not for each."""
    values = torch.stack([loss, *norms.values()]).cpu()
    return values[0], dict(zip(norms, values[1:].unbind(), strict=True))


def clip(optimiser: torch.optim.Optimizer, norm: Tensor, largest: float) -> None:
    """Scales all (unscaled) gradients down if their norm, known to the host, is larger than ``largest``."""
    share = (largest / (norm + 1e-6)).item()  # to the bit what torch.nn.utils.clip_grad_norm_ multiplies by
    if share < 1:
        gradients = [each.grad for group in optimiser.param_groups for each in group["params"] if each.grad is not None]
        torch._foreach_mul_(gradients, share)


class CompiledForBatches:
    """A network that is compiled for full batches; others, such as the last one, run as they are: compiling takes minutes.

    The network itself stays as it is, with its names, and what else uses it does not run compiled. It takes B x 3 x H x W and
    perhaps a number of tokens and a grid, for each of which it is compiled once; a full batch in this process has B = ``batch``.
    """

    def __init__(self, network: Callable[..., Any], batch: int) -> None:
        self.network, self.batch = network, batch
        self.compiled: Callable[..., Any] = torch.compile(network, dynamic=False)

    def __call__(self, images: Tensor, *arguments: int | tuple[int, int] | None) -> Any:
        return (self.compiled if len(images) == self.batch else self.network)(images, *arguments)


@contextmanager
def compile_errors() -> Iterator[None]:
    """Turns a failure of ``torch.compile`` into a ConfigError; it comes at the first batch, not before."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(COMPILERS):
            raise
        problem = f"The networks cannot be compiled on this machine ({type(error).__name__})."
        raise ConfigError(problem, "Leave out --compile.") from error
