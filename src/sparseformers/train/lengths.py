"""Lengths of a training: all of it, and what lies between two checkpoints."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from sparseformers.errors import ConfigError, suggest

Unit = Literal["seconds", "steps", "samples", "epochs"]
SPELLINGS: Mapping[str, tuple[Unit, float]] = {  # names of a unit, and how many of ours it is
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), ("seconds", 1.0)),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), ("seconds", 60.0)),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), ("seconds", 3600.0)),
    **dict.fromkeys(("step", "steps"), ("steps", 1.0)),
    **dict.fromkeys(("sample", "samples", "image", "images"), ("samples", 1.0)),
    **dict.fromkeys(("epoch", "epochs"), ("epochs", 1.0)),
}


@dataclass(frozen=True)
class Budget:
    """The length of a training: images to see, or seconds to spend; one of the two is set."""

    samples: int | None
    seconds: float | None

    def progress(self, *, samples: float, seconds: float) -> float:
        """The share that is spent, in [0, 1], after so many images and so much time."""
        if self.samples is not None:
            return min(1.0, samples / self.samples)
        assert self.seconds is not None  # one of the two is set
        return min(1.0, seconds / self.seconds)

    def less(self, seconds: float) -> Budget:
        """Its steps, where so much time passes before the first one."""
        return self if self.seconds is None else replace(self, seconds=max(1e-3, self.seconds - seconds))


class Place(NamedTuple):
    """A place in a training: images seen, and seconds spent."""

    samples: int
    seconds: float


@dataclass(frozen=True)
class Interval:
    """A length between checkpoints: an amount above 0, whole for steps and images."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Reads ``10m``, ``2h``, ``500steps``, ``100000samples`` or ``1epoch``; raises ConfigError for anything else."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*-?\s*([a-z]+)", text.strip().lower())
        if match is None or match[2] not in SPELLINGS:
            near = suggest(match[2], SPELLINGS) if match else ""
            remedy = f"{near} Write 10m, 500steps or 1epoch, for example.".strip()
            raise ConfigError(f"--checkpoint-every {text} cannot be understood.", remedy)
        unit, size = SPELLINGS[match[2]]
        amount = float(match[1]) * size
        if amount <= 0:
            raise ConfigError(f"--checkpoint-every {text} is no length.", "Use more than 0, such as 10m.")
        if unit in ("steps", "samples") and not amount.is_integer():
            problem = f"--checkpoint-every {text} is no whole number of {unit}."
            raise ConfigError(problem, f"Use {math.ceil(amount)}{unit}, for example.")
        return cls(amount, unit)

    def has_passed(self, before: Place, now: Place, *, batch_size: int, images: int) -> bool:
        """Whether it ended between two places of a training with ``images`` in an epoch.

        By the clock it begins at ``before``; all others count from the beginning of the training, so that a run that was
        stopped and resumed has the same ends as one that was not.
        """
        if self.unit == "seconds":
            return now.seconds - before.seconds >= self.amount
        length = self._in_samples(batch_size, images)
        return now.samples // length > before.samples // length

    def in_seconds(self, *, step: float, batch_size: int, images: int) -> float:
        """Its length in seconds, for steps of ``step`` seconds and epochs of ``images``."""
        return self.amount if self.unit == "seconds" else self._in_samples(batch_size, images) / batch_size * step

    def _in_samples(self, batch_size: int, images: int) -> float:
        return self.amount * {"steps": batch_size, "samples": 1, "epochs": images}[self.unit]
