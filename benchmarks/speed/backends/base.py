"""What the backends have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from benchmarks.speed.operators import Profile
from benchmarks.speed.subjects import Subject
from sparseformers.evaluation import Cost
from sparseformers.exporting.config import Precision
from sparseformers.exporting.formats import Runner


@dataclass(frozen=True)
class Conditions:
    """What is the same for all that is measured."""

    device: torch.device
    threads: int


class Opening(Protocol):
    """A model made ready for a backend. It can be pickled, so that another process can open it, too."""

    @property
    def cost(self) -> Cost:
        """Of the network that is run, which may be a cheaper one for the same embeddings than the model as it was loaded."""

    def open(self, batch: int) -> Runner:
        """The model for batches of one size: images B x 3 x H x W on the device to embeddings there."""

    def profile(self, run: Runner, images: Tensor, path: Path) -> Profile:
        """Where the time of a pass goes.

        Args:
            run: what ``open`` gave for so many images.
            images: B x 3 x H x W on the device.
            path: takes the trace, as far as the library writes one.
        """


class Backend(Protocol):
    """A way to run models."""

    @property
    def libraries(self) -> Sequence[tuple[str, str]]:
        """The packages that it needs beside PyTorch, and the extra that each comes with."""

    def why_not(self, subject: Subject, precision: Precision, conditions: Conditions) -> str | None:
        """Why it does not run this model so, in a line; None where it does."""

    def prepare(
        self, subject: Subject, precision: Precision, conditions: Conditions, calibration: Sequence[Tensor], folder: Path
    ) -> Opening:
        """Makes a model ready.

        Args:
            subject: the model, which stays as it is.
            precision: of its matrix products.
            conditions: where and with how many threads.
            calibration: for int8, batches of images as the model takes them.
            folder: to write files to, which lasts as long as the model is used.
        """
