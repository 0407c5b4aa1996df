"""The training loop: steps, measurements and checkpoints, until the budget is spent."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from sparseformers.data import Batch, SampleStream, SkippedImages, batch_loader
from sparseformers.data.sources import BadShare
from sparseformers.errors import DataError, LoadingError, RunStopped
from sparseformers.evaluation import Alignment
from sparseformers.inheritance.fitted import CoarseTokens
from sparseformers.modes import gradient_scaler
from sparseformers.processes import agreed
from sparseformers.saving import save, saved_score
from sparseformers.train.callbacks import Callback
from sparseformers.train.callbacks.metrics import Meters
from sparseformers.train.checkpoint import Checkpointer, Snapshot
from sparseformers.train.held_out import HeldOut
from sparseformers.train.objective import COARSE_WEIGHT, Objective, Whitening
from sparseformers.train.optimiser import build_optimiser, rate_factor
from sparseformers.train.processes import StopSignals, is_sharded, shard, weights_of
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.setup import FrontFit, Parts
from sparseformers.train.state import Stateful, TrainingState, collect, identity_of, restore
from sparseformers.train.step import NonFiniteSteps, TrainingStep
from sparseformers.train.view_cache import ViewCache


class Trainer:
    """Aligns a student to its teacher on plain images, and writes to the folder ``run``.

    ``snapshot`` is that of a checkpoint to go on from; None starts at the beginning. ``cache`` has views with the teacher's
    embeddings to train on; without it views are made and the teacher runs, but for what it has answered in the ``fit``.
    """

    def __init__(
        self,
        parts: Parts,
        run: RunFolder,
        accelerator: Accelerator,
        *,
        snapshot: Snapshot | None = None,
        cache: ViewCache | None = None,
        fit: FrontFit | None = None,
    ) -> None:
        self.parts, self.run, self.accelerator, self.cache = parts, run, accelerator, cache
        fit = fit or FrontFit()
        self.answers = fit.answers
        self.settings, self.learning = parts.settings, parts.settings.optimisation
        self.student = parts.inheritance.student
        if self.learning.shard_weights:
            shard(self.student, accelerator)
        lr, decay = self.learning.lr, self.learning.weight_decay
        self.optimiser = build_optimiser(self.student, lr=lr, lr_ratios=self.settings.lr_ratios, weight_decay=decay)
        self.skipped = SkippedImages.of(parts.train.faults())
        self.bad = BadShare(missing=parts.train.missing(), images=len(parts.train), most=self.settings.data.max_bad)
        self.meters = Meters(parts.device, every=self.settings.run.log_every)
        self.non_finite = NonFiniteSteps(run.non_finite, accelerator)
        self.scaler = gradient_scaler(parts.precision, parts.device)
        self.stateful: dict[str, Stateful] = {"meters": self.meters, "scaler": self.scaler, "non_finite": self.non_finite}
        self.identity = identity_of(parts)
        self.callbacks: Sequence[Callback] = ()
        self.state = TrainingState(seconds=fit.seconds, fitting=fit.seconds) if snapshot is None else restore(self, snapshot)
        # A kill may have come between that file and the checkpoint that knows of it.
        score = saved_score(run.best)
        self.state.best = TrainingState.best if score is None else score
        start = self.state.place
        self.checkpointer = Checkpointer(run, self.settings, images=len(parts.train), accelerator=accelerator, start=start)

    def train(self, callbacks: Sequence[Callback], signals: StopSignals) -> Alignment:
        """Trains until the budget is spent, and returns the last held-out measurement; the student then has what it measured.

        ``callbacks`` hear of it in their order; there are none but in the main process. Raises RunStopped after a step, with the
        state saved, if one of the ``signals`` asked for it.
        """
        held_out = HeldOut(self.parts, self.skipped, self.accelerator)
        step = self._make_step(held_out)
        self.callbacks, self.state.progress = callbacks, self._progress()
        for callback in callbacks:
            callback.on_start(self.state)
        if self.state.progress >= 1:
            self._save_models()  # the checkpoint was the last thing that is sure to have reached the disk
        elif not self.state.evaluations:
            self._measure(held_out)
        with closing(self._batches()) as batches:
            self._until_spent(step, held_out, batches, signals)
        if self.meters.images == 0 and len(self.skipped):
            self.skipped.write(self.run.skipped)
            problem = f"None of the {len(self.parts.train)} training images can be read."
            raise DataError(problem, f"See '{self.run.skipped}' for the reasons.")
        self._last_checkpoint()
        assert self.state.alignment is not None  # measured at the end, if not before
        return self.state.alignment

    def _until_spent(self, step: TrainingStep, held_out: HeldOut, batches: Iterator[Batch], signals: StopSignals) -> None:
        clock = time.perf_counter()
        while True:
            waiting = time.perf_counter()
            batch = self._next(batches)
            if batch is None:
                break
            waited = time.perf_counter() - waiting
            self._learn(step, batch)
            self.meters.waited(waited)
            self._count(batch)
            now = time.perf_counter()
            self.state.seconds, clock = self.state.seconds + agreed(now - clock, self.accelerator), now
            self.state.progress = self._progress()
            figures = None
            if self.meters.due():
                figures = {**self.meters.read(), **{f"lr_{group['name']}": group["lr"] for group in self.optimiser.param_groups}}
            for callback in self.callbacks:
                callback.on_step(self.state, figures)
            if self.state.progress >= self.state.evaluations / self.settings.run.evaluations:  # number 0 is before the first step
                self._measure(held_out)
            if self.state.progress >= 1:
                break
            if self.checkpointer.is_due(self.state.place):
                self._checkpoint()
            self._stop_if_asked(signals)

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        """The next batch, None at the end of the stream; saves what there is if the processes that read have failed."""
        try:
            return next(batches, None)
        except LoadingError:
            if self.accelerator.num_processes == 1:  # others would not come
                self._last_checkpoint()
            raise

    def _make_step(self, held_out: HeldOut) -> TrainingStep:
        """The step of this training; whitening is by the teacher's embeddings of the held-out images."""
        optimiser = self.accelerator.prepare(self.optimiser)
        model = self.student if is_sharded(self.student) else self.accelerator.prepare(self.student)
        fitted = self.settings.network.start == "fitted"
        objective = Objective(
            whitening=Whitening.of(held_out.by_teacher.embedding.to(self.parts.device)) if self.settings.whitens else None,
            **(held_out.statistics_of_maps() if held_out.dense else {}),
            coarse_weight=COARSE_WEIGHT if fitted else 0.0,
        )
        coarse = None
        if fitted:
            tokens, depth = self.student.config.focusing.tokens, self.parts.inheritance.provenance.shares.truncate
            coarse = CoarseTokens(self.parts.teacher, tokens=tokens, depth=depth).to(self.parts.device)
        given = (self.parts, model, optimiser, self.accelerator)
        return TrainingStep(*given, objective=objective, scaler=self.scaler, coarse=coarse)

    def _batches(self) -> Generator[Batch]:
        parts = self.parts
        place = {"process": self.accelerator.process_index, "processes": self.accelerator.num_processes}
        place |= {"batch_size": self.learning.batch_size, "seed": self.learning.seed, "start": self.state.samples}
        stream = SampleStream(parts.train.sample_order(), total=parts.budget.samples, **place)
        loader = batch_loader(parts.training_views(), stream, workers=parts.workers).__iter__
        answers = iter(self.answers)
        known = next(answers, None)
        with closing(loader() if self.cache is None else self.cache.batches(stream)) as batches:
            for batch in batches:
                if known is None or not torch.equal(known.indices, batch.indices):
                    yield batch
                else:
                    yield batch._replace(targets=known.targets, attention_maps=known.attention_maps)
                    known = next(answers, None)

    def _learn(self, step: TrainingStep, batch: Batch) -> None:
        """A step on the batch, unless no process could read any of it; NonFiniteLossError for the third skipped one in a row."""
        # The rate at the middle of the step: at its end the last one, or the only one, would have a rate of zero.
        ahead = self._step_size() / 2 / self.parts.budget.samples if self.parts.budget.samples else 0.0
        middle = min(1.0, self.state.progress + ahead)
        figures = step(batch, rate=rate_factor(middle, self.learning.warm_up), samples=self.state.samples, progress=middle)
        if figures is None:
            return
        if figures.outcome == "made":
            self.meters.step(figures.loss, figures.norm, figures.images, norms=figures.norms)
            self.non_finite.made()
            return
        self.meters.skipped(figures.images, overflow=figures.outcome == "overflow")
        if figures.outcome == "non_finite":
            self.non_finite.skipped([self.parts.train.name(int(index)) for index in batch.indices], samples=self.state.samples)

    def _count(self, batch: Batch) -> None:
        """Advances by a global batch, as the stream does, and notes what could not be read."""
        for index, reason in batch.unreadable:
            self.skipped.add(self.parts.train.name(index), reason)
        met, bad = len(batch.images) + len(batch.unreadable), len(batch.unreadable)
        if self.accelerator.num_processes > 1:
            met, bad = self.accelerator.reduce(torch.tensor([met, bad], device=self.accelerator.device)).tolist()
        self.bad.count(met=met, bad=bad)
        self.state.samples += self._step_size()
        if self.bad.is_too_great:
            self._last_checkpoint()
            self.bad.refuse(f"see '{self.run.skipped}'")

    def _step_size(self) -> int:
        """Images of the next global batch, over all processes; the last one may be short."""
        if self.parts.budget.samples is None:
            return self.learning.batch_size
        return min(self.learning.batch_size, self.parts.budget.samples - self.state.samples)

    def _progress(self) -> float:
        budget, state = self.parts.budget.less(self.state.fitting), self.state
        return budget.progress(samples=state.samples, seconds=state.seconds - state.fitting)

    def _measure(self, held_out: HeldOut) -> None:
        measured = held_out.measure(self.student)
        self.state.alignment = measured.alignment
        self.state.evaluations = 1 + int(self.state.progress * self.settings.run.evaluations)  # those that were missed are past
        for callback in self.callbacks:
            callback.on_measured(self.state, held_out, measured)
        self._save_models(score=measured.alignment.centred_cosine)

    def _save_models(self, score: float | None = None) -> None:
        """Saves the model, and as the best one, too, if no other had so high a ``score``."""
        weights = weights_of(self.student)
        if self.accelerator.is_main_process:
            provenance = self.parts.inheritance.provenance
            save(self.student, self.run.model, provenance=provenance, weights=weights)
            if score is not None and score > self.state.best:
                save(self.student, self.run.best, provenance=provenance, weights=weights, score=score)
        if score is not None:
            self.state.best = max(self.state.best, score)
        self.accelerator.wait_for_everyone()

    def _checkpoint(self) -> None:
        """Begins to write a checkpoint beside the steps that follow."""
        self.skipped.update(gather_object([self.skipped]))
        self.checkpointer.save(collect(self), self.state.place)
        for callback in self.callbacks:
            callback.on_checkpoint(self.state)
        if self.accelerator.is_main_process:
            self.skipped.write(self.run.skipped)

    def _last_checkpoint(self) -> None:
        """Writes a checkpoint, unless there is one of here, and waits until it is whole."""
        if self.checkpointer.saved != self.state.place:
            self._checkpoint()
        self.checkpointer.wait()
        self.accelerator.wait_for_everyone()

    def _stop_if_asked(self, signals: StopSignals) -> None:
        """Saves and stops in all processes, if a signal reached any; stops if a checkpoint could not be written."""
        if self.checkpointer.has_failed:
            self.checkpointer.wait()  # which raises the reason
        if code := int(agreed(float(signals.asked), self.accelerator)):
            self._last_checkpoint()
            raise RunStopped(self.run.path, samples=self.state.samples, by=signal.Signals(code))
