"""Short trainings on one view of each image, with the default recipe's rates and loss, for rows that differ in one thing."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from sparseformers.data import evaluation_view, find_images, read_image
from sparseformers.errors import ConfigError, suggest
from sparseformers.model import SparseFormer
from sparseformers.teachers import Teacher
from sparseformers.train.optimiser import build_optimiser, rate_factor, set_rates

BATCH, RATE, WARM_UP, WEIGHT_DECAY, CLIP = 32, 3e-5, 0.05, 0.05, 1.0


def check_rows(asked: Sequence[str], known: Collection[str]) -> None:
    """Raises ConfigError for a row that there is not."""
    for row in asked:
        if row not in known:
            raise ConfigError(f"There is no row '{row}'.", suggest(row, known) or f"Choose from {', '.join(known)}.")


def views_of(teacher: Teacher, folder: Path, most: int) -> Iterator[Tensor]:
    """Batches of a random choice of a folder's images as the teacher sees them, B x 3 x H x W in [0, 1]."""
    paths = find_images([folder])
    random.Random(0).shuffle(paths)
    view, most = evaluation_view(teacher.preprocessing), min(most, len(paths))
    for first in range(0, most, BATCH):
        yield torch.stack([view(read_image(each)) for each in paths[first : min(most, first + BATCH)]])


def train(
    student: SparseFormer,
    loss_of: Callable[[Tensor], Tensor],
    *,
    images: int,
    samples: int,
    seed: int,
    lr_ratios: Mapping[str, float] | None = None,
) -> None:
    """Trains a student in place; ``loss_of`` takes which of the ``images`` a batch has. The schedule ends at the last step."""
    optimiser = build_optimiser(student, lr=RATE, lr_ratios=lr_ratios or {}, weight_decay=WEIGHT_DECAY)
    generator, steps = torch.Generator().manual_seed(seed), max(1, samples // BATCH)
    order = torch.cat([torch.randperm(images, generator=generator) for _ in range(-(-steps * BATCH // images))])
    torch.manual_seed(seed)
    for step in range(steps):
        set_rates(optimiser, rate_factor((step + 0.5) / steps, WARM_UP))
        loss_of(order[step * BATCH : (step + 1) * BATCH]).backward()
        nn.utils.clip_grad_norm_(student.parameters(), CLIP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
