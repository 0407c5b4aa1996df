"""Lengths between two checkpoints: by the clock, in steps, in images, or in passes over them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sparseformers.errors import ConfigError, suggest

Unit = Literal["seconds", "steps", "samples", "epochs"]

SPELLINGS: Mapping[str, tuple[Unit, float]] = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), ("seconds", 1.0)),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), ("seconds", 60.0)),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), ("seconds", 3600.0)),
    **dict.fromkeys(("step", "steps"), ("steps", 1.0)),
    **dict.fromkeys(("sample", "samples", "image", "images"), ("samples", 1.0)),
    **dict.fromkeys(("epoch", "epochs"), ("epochs", 1.0)),
}
"""What a unit may be called, and how many of ours it is."""


@dataclass(frozen=True)
class Interval:
    """A length of training."""

    amount: float
    """Above 0; whole for steps and images."""
    unit: Unit
    """What is counted."""

    @classmethod
    def parse(cls, text: str, *, flag: str) -> Interval:
        """Reads ``10m``, ``30s``, ``2h``, ``500steps``, ``100000samples`` or ``1epoch``; blanks and long names are welcome.

        Args:
            text: to read.
            flag: what the text was given to, for messages.

        Raises:
            ConfigError: for anything else.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*-?\s*([a-z]+)", text.strip().lower())
        if match is None or match[2] not in SPELLINGS:
            near = suggest(match[2], SPELLINGS) if match else ""
            raise ConfigError(
                f"{flag} {text} cannot be understood.", f"{near} Write 10m, 500steps or 1epoch, for example.".strip()
            )
        unit, size = SPELLINGS[match[2]]
        amount = float(match[1]) * size
        if amount <= 0:
            raise ConfigError(f"{flag} {text} is no length.", "Use more than 0, such as 10m.")
        if unit in ("steps", "samples") and not amount.is_integer():
            raise ConfigError(f"{flag} {text} is no whole number of {unit}.", f"Use {math.ceil(amount)}{unit}, for example.")
        return cls(amount, unit)

    def has_passed(self, before: Place, now: Place, *, batch_size: int, images: int) -> bool:
        """Whether it ended between two places of a training.

        By the clock it begins at ``before``; all others count from the beginning of the training, so that a run that was
        stopped and resumed has the same ends as one that was not.

        Args:
            before: the earlier place.
            now: the later one.
            batch_size: images of a step.
            images: of an epoch.
        """
        if self.unit == "seconds":
            return now.seconds - before.seconds >= self.amount
        done_before, done = (self._done(place.samples, batch_size=batch_size, images=images) for place in (before, now))
        return done > done_before

    def in_seconds(self, *, step: float, batch_size: int, images: int) -> float:
        """How long it takes.

        Args:
            step: seconds of a step.
            batch_size: images of a step.
            images: of an epoch.
        """
        if self.unit == "seconds":
            return self.amount
        steps = {"steps": 1.0, "samples": 1 / batch_size, "epochs": images / batch_size}[self.unit]
        return self.amount * steps * step

    def _done(self, samples: int, *, batch_size: int, images: int) -> int:
        """How often it has ended since the beginning of the training."""
        if self.unit == "steps":
            return math.ceil(samples / batch_size) // int(self.amount)
        return int(samples // (self.amount * (images if self.unit == "epochs" else 1)))


@dataclass(frozen=True)
class Place:
    """A place in a training."""

    samples: int
    """Images seen."""
    seconds: float
    """Time spent."""
