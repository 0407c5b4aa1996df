"""The fitted start of the papers' front: images to fit it on, read as they are for training."""

from __future__ import annotations

import math

import torch

from sparseformers.data import SampleStream, images_on, training_loader
from sparseformers.errors import DataError
from sparseformers.inheritance.fitted import fit_start
from sparseformers.train.cache.views import ViewCache
from sparseformers.train.setup import Parts

FITTED_TOKENS = 16_384
"""Latent tokens that the start is fitted on: this number over N images."""


def fit_front(parts: Parts, cache: ViewCache | None) -> float:
    """Fits the starting values of the student's front on views of the first images of the training's order.

    Args:
        parts: of the training.
        cache: of views, where the training has one.

    Returns:
        The share of the variance of the teacher's tokens that is left, see :func:`sparseformers.inheritance.fitted.fit_start`.

    Raises:
        DataError: if fewer than two of the images can be read.
    """
    student, settings = parts.inheritance.student, parts.settings
    count = min(len(parts.train), math.ceil(FITTED_TOKENS / student.config.focusing.tokens))
    stream = SampleStream(parts.order, batch_size=settings.optimisation.batch_size, seed=settings.optimisation.seed, total=count)
    batches = training_loader(parts.training_views(), stream, workers=parts.workers) if cache is None else cache.batches(stream)
    read = [batch.images for batch in batches if len(batch.images)]
    if sum(map(len, read)) < 2:
        raise DataError(
            f"Fewer than two of the {count} images that the start was to be fitted on can be read.",
            "Name another folder with --data, or leave out --recipe fitted.",
        )
    shares = parts.inheritance.provenance.shares
    # A student that is to be sharded is not on the device yet.
    images = images_on(next(student.parameters()).device, torch.cat(read))
    return fit_start(student, parts.teacher, images, truncated=shares.truncate, seed=settings.optimisation.seed)
