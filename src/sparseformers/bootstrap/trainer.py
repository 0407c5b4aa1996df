"""The training loop: one screen to read, everything else in the files beside it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

import torch
from accelerate import Accelerator
from torch import Tensor

from sparseformers.bootstrap.average import WeightAverage
from sparseformers.bootstrap.held_out import HeldOut
from sparseformers.bootstrap.meters import Meters
from sparseformers.bootstrap.objective import PLAIN, Objective, alignment_loss
from sparseformers.bootstrap.optimiser import build_optimiser, rate_factor, set_rates
from sparseformers.bootstrap.precision import autocast_dtype
from sparseformers.bootstrap.progress import TrainingProgress
from sparseformers.bootstrap.run_folder import RunFolder
from sparseformers.bootstrap.setup import Parts
from sparseformers.bootstrap.state import TrainingState, load_checkpoint, save_checkpoint
from sparseformers.bootstrap.view_cache import ViewCache
from sparseformers.data import Batch, SampleStream, SkippedImages, derived_seed, training_loader
from sparseformers.errors import DataError, NonFiniteLossError
from sparseformers.evaluate import Alignment
from sparseformers.files import write_text
from sparseformers.saving import save

LOGGER = logging.getLogger("sparseformers")


class Trainer:
    """Aligns a student to its teacher on plain images.

    Args:
        parts: teacher, student, images, budget.
        run: where to write.
        accelerator: of the process, or of one of several.
        resume: whether to go on from the run's checkpoint.
        cache: views with the teacher's embeddings to train on; without it views are made and the teacher runs.
    """

    def __init__(
        self,
        parts: Parts,
        run: RunFolder,
        accelerator: Accelerator,
        *,
        resume: bool = False,
        cache: ViewCache | None = None,
    ) -> None:
        self.parts, self.run, self.accelerator, self.cache = parts, run, accelerator, cache
        self.settings = parts.settings
        self.student = parts.inheritance.student
        self.optimiser = build_optimiser(
            self.student,
            lr=self.settings.lr,
            lr_ratios=self.settings.lr_ratios,
            weight_decay=self.settings.weight_decay,
            layer_decay=self.settings.layer_decay,
        )
        self.average = WeightAverage(self.student, self.settings.ema) if self.settings.ema else None
        self.state = TrainingState()
        if resume:
            self.state = load_checkpoint(run.checkpoint, self.student, self.optimiser, self.average)
        self.skipped = SkippedImages()
        self.meters = Meters(parts.device)
        self.autocast = autocast_dtype(parts.precision)
        self.objective = PLAIN

    def train(self, progress_bar: TrainingProgress) -> Alignment:
        """Trains until the budget is spent, and returns the last held-out measurement; the student then has what it measured."""
        held_out = HeldOut(self.parts, self.skipped)
        self.objective = Objective(
            centred=self.settings.centred,
            mean=held_out.teacher.mean(dim=0).to(self.parts.device),
            token_weight=self.settings.token_weight,
        )
        model, optimiser = self.accelerator.prepare(self.student, self.optimiser)
        alignment = self._alignment(held_out) if self.state.evaluations else self._measure(held_out, progress_bar)
        checkpointed = clock = time.perf_counter()
        for batch in self.meters.timed(self._batches()):
            if self._everywhere(len(batch.images) > 0):
                set_rates(optimiser, rate_factor(self._progress(ahead=self._step_size() / 2), self.settings.warm_up))
                loss = self._loss(model, batch)
                self.accelerator.backward(loss)
                norm = self._clip()
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                if self.average is not None:
                    self.average.update()
                self.meters.step(loss, norm, len(batch.images) * self.accelerator.num_processes)
            self._count(batch)
            now = time.perf_counter()
            self.state.seconds, clock = self.state.seconds + self._agreed(now - clock), now
            self._report(progress_bar)
            if self._evaluation_is_due():
                alignment = self._measure(held_out, progress_bar)
            if now - checkpointed > 60 * self.settings.checkpoint_minutes:
                self._checkpoint()
                checkpointed = now
            if self._progress() >= 1:
                break
        self._refuse_if_nothing_was_read()
        self._checkpoint()
        if self.average is not None:
            self.average.install()
        return alignment

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

    def _loss(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """The objective on one batch.

        Raises:
            NonFiniteLossError: before a step is made from it.
        """
        images = batch.images.to(self.parts.device, non_blocking=True)
        targets = None if batch.targets is None else batch.targets.to(self.parts.device, non_blocking=True)
        loss = alignment_loss(
            model, self.parts.teacher, images, self.autocast, targets, objective=self.objective, tokens=self._tokens()
        )
        if not self._everywhere(math.isfinite(loss.item())):
            self._stop_on(batch)
        return loss

    def _tokens(self) -> int | None:
        """How many tokens the next step has: drawn from the seed and the samples seen, so that a resumed run agrees."""
        if not self.settings.elastic:
            return None
        own = self.student.config.focusing.tokens
        choices = sorted({own, *self.settings.elastic})
        return choices[derived_seed(self.settings.seed, self.state.samples) % len(choices)]

    def _batches(self) -> Iterable[Batch]:
        """What is left of the stream of views for this process."""
        settings, parts = self.settings, self.parts
        stream = SampleStream(
            len(parts.train),
            batch_size=settings.batch_size,
            seed=settings.seed,
            total=parts.budget.samples,
            start=self.state.samples,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        if self.cache is not None:
            return self.cache.batches(stream)
        return training_loader(parts.training_views(), stream, workers=parts.workers)

    def _progress(self, ahead: float = 0) -> float:
        """Share of the budget that is spent, or will be after ``ahead`` more images.

        Rates are taken at the middle of a step: at its end the last one, or the only one, would have a rate of zero.
        """
        return self.parts.budget.progress(samples=self.state.samples + ahead, seconds=self.state.seconds)

    def _everywhere(self, condition: bool) -> bool:
        """Whether a condition holds in all processes."""
        return self._agreed(float(not condition)) == 0

    def _agreed(self, value: float) -> float:
        """The largest of all processes' values, so that all of them take the same decisions from it."""
        if self.accelerator.num_processes == 1:
            return value
        return float(self.accelerator.gather(torch.tensor([value], device=self.parts.device)).max())

    def _count(self, batch: Batch) -> None:
        """Advances by a global batch, as the stream does, and notes what could not be read."""
        for index, reason in batch.unreadable:
            self.skipped.add(self.parts.train[index], reason)
        self.state.samples += self._step_size()

    def _step_size(self) -> int:
        """Images of the next global batch, over all processes; the last one may be short."""
        if self.parts.budget.samples is None:
            return self.settings.batch_size
        return min(self.settings.batch_size, self.parts.budget.samples - self.state.samples)

    def _evaluation_is_due(self) -> bool:
        """Measurements are spread evenly over the budget; the one before the first step is number 0."""
        due = self.state.evaluations / self.settings.evaluations
        return self._progress() >= due

    def _averaged(self) -> AbstractContextManager[None]:
        """Within it the student has the average of its weights, where one is kept."""
        return nullcontext() if self.average is None else self.average.installed()

    def _alignment(self, held_out: HeldOut) -> Alignment:
        with self._averaged():
            return held_out.measure(self.student)

    def _measure(self, held_out: HeldOut, progress_bar: TrainingProgress) -> Alignment:
        """Measures on the held-out images, writes it down, and saves the model."""
        alignment = self._alignment(held_out)
        self.state.evaluations = 1 + int(self._progress() * self.settings.evaluations)  # those that were missed are past
        if self.accelerator.is_main_process:
            self.run.append_metrics(
                {"kind": "held_out", "samples": self.state.samples, "seconds": round(self.state.seconds, 1), **asdict(alignment)}
            )
            provenance = self.parts.inheritance.provenance
            with self._averaged():
                save(self.student, self.run.model, provenance=provenance)
                if alignment.centred_cosine > self.state.best:
                    save(self.student, self.run.best, provenance=provenance)
            progress_bar.measured(self._progress(), self.state.samples, alignment)
            LOGGER.info("%d images: held-out centred cosine %.4f", self.state.samples, alignment.centred_cosine)
        self.state.best = max(self.state.best, alignment.centred_cosine)
        self.accelerator.wait_for_everyone()
        return alignment

    def _report(self, progress_bar: TrainingProgress) -> None:
        """Now and then: the meters to the bar and to ``metrics.jsonl``."""
        if not self.meters.due():
            return
        figures = self.meters.read()
        if self.accelerator.is_main_process:
            rates = {f"lr_{group['name']}": group["lr"] for group in self.optimiser.param_groups}
            self.run.append_metrics(
                {"kind": "train", "samples": self.state.samples, "seconds": round(self.state.seconds, 1), **figures, **rates}
            )
            progress_bar.step(
                self._progress(),
                loss=figures["loss"],
                images_per_second=figures["images_per_second"],
                data_wait=figures["data_wait"],
            )

    def _checkpoint(self) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(self.run.checkpoint, self.state, self.student, self.optimiser, self.average)
            self.skipped.write(self.run.skipped)
        self.accelerator.wait_for_everyone()

    def _stop_on(self, batch: Batch) -> None:
        files = [str(self.parts.train[int(index)]) for index in batch.indices]
        write_text(self.run.non_finite, "".join(f"{file}\n" for file in files))
        raise NonFiniteLossError(
            f"The loss is not a finite number after {self.state.samples:,} images, so training stopped before the step.",
            f"Look at the images listed in '{self.run.non_finite}', lower --lr, or use --precision fp32; then resume the run.",
        )

    def _refuse_if_nothing_was_read(self) -> None:
        if self.meters.images == 0 and len(self.skipped):
            self.skipped.write(self.run.skipped)
            raise DataError(
                f"None of the {len(self.parts.train)} training images can be read.",
                f"See '{self.run.skipped}' for the reasons.",
            )
