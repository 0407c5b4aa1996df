"""The state of a training between two steps, and how it is saved and loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sparseformers.bootstrap.average import WeightAverage
from sparseformers.bootstrap.sharding import gathered, load_optimiser, load_student
from sparseformers.errors import RunError
from sparseformers.files import replacing
from sparseformers.model import SparseFormer


@dataclass
class TrainingState:
    """Where a training is. Views and order are functions of the seed and ``samples``, so no generator needs saving."""

    samples: int = 0
    """Images seen, those that could not be read counted in."""
    seconds: float = 0.0
    """Time spent training, over all resumptions."""
    best: float = -2.0
    """Highest held-out centred cosine so far."""
    evaluations: int = 0
    """Measurements made so far."""


def save_checkpoint(
    path: Path,
    state: TrainingState,
    student: SparseFormer,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage | None = None,
    *,
    writes: bool = True,
) -> None:
    """Writes all that resuming needs, whole or not at all: the newest weights, and their average where there is one.

    The teacher is not in it. All processes have to call it, and the one that ``writes`` does so.
    """
    content = {"state": vars(state).copy(), "student": student.state_dict(), "optimiser": optimiser.state_dict()}
    if average is not None:
        content["average"] = average.state_dict()
    content = gathered(content, keep=writes)
    if not writes:
        return
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(
    path: Path, student: SparseFormer, optimiser: torch.optim.Optimizer, average: WeightAverage | None = None
) -> TrainingState:
    """Restores student, optimiser and average, and returns where the training was.

    Raises:
        RunError: if there is no checkpoint, or it cannot be read.
    """
    if not path.is_file():
        raise RunError(f"The run has no checkpoint '{path}' to go on from.", "Start it again with --overwrite.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        load_student(student, content["student"])
        load_optimiser(optimiser, content["optimiser"])
        if average is not None:
            average.load_state_dict(content["average"])
        return TrainingState(**content["state"])
    except Exception as error:  # the reader raises whatever the damaged bytes lead it to
        raise RunError(
            f"The checkpoint '{path}' cannot be read ({type(error).__name__}).", "Start the run again with --overwrite."
        ) from error
