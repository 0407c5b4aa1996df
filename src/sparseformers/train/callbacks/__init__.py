"""Callbacks of the training loop: figures, trackers, signs of life, card, pictures and report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparseformers.train.callbacks.summary import RunSummary
    from sparseformers.train.held_out import HeldOut, Measurement
    from sparseformers.train.setup import Parts
    from sparseformers.train.state import TrainingState


class Callback:
    """Hears how a training goes and does nothing about it; a subclass overrides what it is there for.

    The loop calls its callbacks in their order and in the main process alone: they may write files, and must not communicate
    with other processes. What they raise ends the training.
    """

    def on_start(self, state: TrainingState) -> None:
        """Before the first step, or the first one after the run was resumed."""

    def on_step(self, state: TrainingState, figures: Mapping[str, float] | None) -> None:
        """After each step; ``figures`` are loss, gradient norms, learning rates (``lr_NAME``), images a second and the like, over
        the steps since they were last given, every ``log_every`` steps; None in between.
        """

    def on_measured(self, state: TrainingState, held_out: HeldOut, measurement: Measurement) -> None:
        """After a measurement on the held-out images; at ``state.progress`` 1 it is the last one."""

    def on_checkpoint(self, state: TrainingState) -> None:
        """When a checkpoint begins to be written."""

    def on_end(self, parts: Parts, summary: RunSummary) -> None:
        """When the training is finished; the student in ``parts`` is whole also where it was sharded."""

    def on_stop(self, error: BaseException | None) -> None:
        """At the very end, however the training ends; ``error`` ended it, None for a finished one."""


@contextmanager
def attached(callbacks: Sequence[Callback]) -> Iterator[None]:
    """Sees to it that every callback's :meth:`~Callback.on_stop` is called, the last one's first."""
    with ExitStack() as stack:
        for callback in callbacks:
            stack.push(lambda _kind, error, _trace, callback=callback: callback.on_stop(error))
        yield
