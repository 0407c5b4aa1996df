"""How long to train: a number of samples, or minutes on the clock."""

from __future__ import annotations

from dataclasses import dataclass

from sparseformers.train.settings import BootstrapConfig

DEFAULT_EPOCHS = 10.0
"""Passes over the images when no length is given."""


@dataclass(frozen=True)
class Budget:
    """The length of a training; one of the two is set."""

    samples: int | None
    """Images to see."""
    seconds: float | None
    """Time to spend."""

    @classmethod
    def of(cls, settings: BootstrapConfig, *, images: int) -> Budget:
        """The budget that the settings ask for.

        Args:
            settings: of the run.
            images: how many images there are to train on.
        """
        if settings.optimisation.minutes is not None:
            return cls(samples=None, seconds=60 * settings.optimisation.minutes)
        if settings.optimisation.samples is not None:
            return cls(samples=settings.optimisation.samples, seconds=None)
        epochs = DEFAULT_EPOCHS if settings.optimisation.epochs is None else settings.optimisation.epochs
        return cls(samples=max(1, round(epochs * images)), seconds=None)

    def progress(self, *, samples: float, seconds: float) -> float:
        """How much of it is spent, in [0, 1].

        Args:
            samples: images seen so far.
            seconds: time spent training so far.
        """
        if self.samples is not None:
            return min(1.0, samples / self.samples)
        assert self.seconds is not None  # one of the two is set
        return min(1.0, seconds / self.seconds)
