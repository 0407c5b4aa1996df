"""How close a student's embeddings are to its teacher's: pure functions of two M x D tensors, no model.

Plain cosine flatters: the embeddings of many foundation models lie in a narrow cone, so that a constant output already
scores high. Centred cosine, which takes the common direction away, therefore comes first, and plain cosine stands beside
what a constant output would score.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseformers.errors import DataError
from sparseformers.evaluation.neighbours import nearest_neighbours


@dataclass(frozen=True)
class Alignment:
    """Distances between the embeddings of a student and of its teacher on the same images."""

    centred_cosine: float
    """Mean cosine after the teacher's mean embedding on these images is subtracted from both; about 0 for a constant student."""
    cosine_mean: float
    """Mean cosine of the student's embedding to the teacher's, in [-1, 1]."""
    cosine_median: float
    """Median of that cosine over the images."""
    cosine_p05: float
    """Its 5th percentile: 1 image in 20 is further from the teacher than that."""
    constant_baseline: float
    """Mean cosine of the teacher's mean embedding to each of the teacher's embeddings: what a constant output scores."""
    neighbour_agreement: float
    """Mean share of an image's nearest neighbours (by cosine, itself excluded) that are the same in the teacher's and in the
    student's space, in [0, 1]."""
    neighbour_chance: float
    """What random neighbours would score there: k / (M - 1)."""
    neighbours: int
    """k, how many neighbours are compared."""
    images: int
    """M, how many images these figures are of."""


def centred_cosine(student: Tensor, teacher: Tensor, centre: Tensor | None = None) -> Tensor:
    """Cosine of each student embedding to its teacher embedding, as seen from a common centre.

    Args:
        student: M x D.
        teacher: M x D, row by row of the same images.
        centre: D, subtracted from both; the teacher's mean over these rows by default. For few rows, such as a training
            batch, give the mean over more data.

    Returns:
        M cosines in [-1, 1]; 0 where an embedding is the centre itself.

    Raises:
        ValueError: for different shapes.
    """
    student, teacher = _same_shape(student, teacher)
    centre = mean_embedding(teacher) if centre is None else centre.to(teacher)
    return F.cosine_similarity(student - centre, teacher - centre, dim=-1)


def cosine_of_each(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """The plain and the centred cosine of each of M images, whose means :class:`Alignment` has.

    Args:
        student: M x D.
        teacher: M x D, row by row of the same images.

    Returns:
        M cosines in [-1, 1], twice.

    Raises:
        ValueError: for different shapes.
    """
    student, teacher = _same_shape(student, teacher)
    return F.cosine_similarity(student, teacher, dim=-1), centred_cosine(student, teacher)


def mean_embedding(embeddings: Tensor) -> Tensor:
    """The mean of M x D embeddings: D, summed in float64 so that many rows lose no digits."""
    return embeddings.mean(dim=0, dtype=torch.float64).to(embeddings.dtype)


def measure_alignment(student: Tensor, teacher: Tensor, *, neighbours: int = 10) -> Alignment:
    """Compares a student's embeddings with its teacher's.

    Args:
        student: M x D, M >= 2.
        teacher: M x D, row by row of the same images.
        neighbours: how many nearest neighbours to compare (fewer where there are fewer images).

    Raises:
        ValueError: for different shapes.
        DataError: for fewer than two images, on which neither a mean nor a neighbour says anything.
    """
    student, teacher = _same_shape(student, teacher)
    images = len(teacher)
    if images < 2:
        raise DataError(
            f"Alignment can only be measured on two images or more, not on {images}.",
            "Evaluate on a folder with more readable images.",
        )
    cosine = F.cosine_similarity(student, teacher, dim=-1)
    low, median = torch.quantile(cosine, torch.tensor([0.05, 0.5]).to(cosine)).tolist()
    centre = mean_embedding(teacher)
    compared = min(neighbours, images - 1)
    return Alignment(
        centred_cosine=centred_cosine(student, teacher, centre).mean().item(),
        cosine_mean=cosine.mean().item(),
        cosine_median=median,
        cosine_p05=low,
        constant_baseline=F.cosine_similarity(centre.unsqueeze(0), teacher, dim=-1).mean().item(),
        neighbour_agreement=_neighbour_agreement(student, teacher, compared),
        neighbour_chance=compared / (images - 1),
        neighbours=compared,
        images=images,
    )


def _neighbour_agreement(student: Tensor, teacher: Tensor, k: int) -> float:
    """Mean share of the k nearest neighbours that two embeddings of the same images have in common."""
    _, of_student = nearest_neighbours(student, student, k, exclude_self=True)  # M x k
    _, of_teacher = nearest_neighbours(teacher, teacher, k, exclude_self=True)
    return (of_student.unsqueeze(2) == of_teacher.unsqueeze(1)).any(dim=2).double().mean().item()


def _same_shape(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one precision, float32 at least; raises ValueError unless both are M x D."""
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher embeddings must both be M x D, not {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    precision = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(precision), teacher.to(precision)
