"""Alignment of a student's embeddings with its teacher's, and nearest neighbours: pure functions of tensors, no model.

Plain cosine flatters: many foundation models embed into a narrow cone, so that a constant output already scores high. Centred
cosine takes the common direction away and therefore comes first. Legend: as in the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseformers.errors import DataError

SIMILARITIES_AT_ONCE = 1 << 24  # similarities that are held at once: 64 MiB of float32


class Neighbours(NamedTuple):
    """The k nearest rows of an index to each of Q queries, nearest first."""

    similarities: Tensor
    indices: Tensor  # Q x k, int64: rows of the index


def nearest_neighbours(
    queries: Tensor, index: Tensor, k: int, *, exclude_self: bool = False, at_once: int = SIMILARITIES_AT_ONCE
) -> Neighbours:
    """Finds the k nearest rows of an index (M x D) to each query (Q x D) by cosine, exactly.
    With ``exclude_self`` query i is row i of the index, which is no neighbour of its own. At most ``at_once`` similarities are
    held at a time. Raises ValueError for widths that differ, a k out of range, or Q other than M with ``exclude_self``.
    """
    if queries.ndim != 2 or index.ndim != 2 or queries.shape[1] != index.shape[1]:
        raise ValueError(f"queries and index must be Q x D and M x D, not {tuple(queries.shape)} and {tuple(index.shape)}")
    if exclude_self and len(queries) != len(index):
        raise ValueError(f"only an index of the queries themselves has a self to exclude, not {len(index)} for {len(queries)}")
    if not 1 <= k <= len(index) - exclude_self:
        raise ValueError(f"k must be from 1 to {len(index) - exclude_self}, not {k}")
    queries, index = _unit_rows(queries), _unit_rows(index)
    found, rows = [], max(1, at_once // len(index))
    for start in range(0, max(1, len(queries)), rows):  # without queries one turn, of none
        chunk = queries[start : start + rows] @ index.T  # rows x M
        if exclude_self:
            chunk.diagonal(offset=start).fill_(-torch.inf)
        found.append(chunk.topk(k, dim=1))
    return Neighbours(torch.cat([nearest.values for nearest in found]), torch.cat([nearest.indices for nearest in found]))


def knn_accuracy(
    queries: Tensor,
    query_labels: Tensor,
    index: Tensor,
    index_labels: Tensor,
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    exclude_self: bool = False,
) -> float:
    """Top-1 accuracy of weighted k-nearest-neighbour classification (Wu et al., CVPR 2018, section 3.4; as in DINO).

    Each of the k nearest neighbours (fewer where the index holds fewer) votes for its class with exp(cosine / temperature).
    Queries are Q x D, the index is M x D, labels are integers in [0, classes). ``exclude_self`` leaves one out: query i is row i
    of the index. Raises ValueError for labels that do not go with the rows, or no queries.
    """
    if len(queries) == 0 or len(query_labels) != len(queries) or len(index_labels) != len(index):
        there = f"{len(query_labels)} labels of {len(queries)} queries, {len(index_labels)} of {len(index)} rows of the index"
        raise ValueError(f"every row needs a label and there must be queries: {there}")
    index_labels = index_labels.to(queries.device)
    found = nearest_neighbours(queries, index, min(k, len(index) - exclude_self), exclude_self=exclude_self)
    # Relative to the nearest, which changes no comparison and keeps low temperatures from overflowing.
    weights = ((found.similarities - found.similarities[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(queries), classes).scatter_add_(1, index_labels[found.indices], weights)
    return (votes.argmax(dim=1) == query_labels.to(votes.device)).double().mean().item()


def _unit_rows(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=-1)


@dataclass(frozen=True)
class Alignment:
    """Distances between the embeddings of a student and of its teacher on the same images."""

    centred_cosine: float  # mean cosine, the teacher's mean subtracted from both; about 0 for a constant student
    cosine_mean: float  # mean cosine of the student's embedding to the teacher's, in [-1, 1]
    cosine_median: float
    cosine_p05: float  # its 5th percentile: 1 image in 20 is further from the teacher than that
    constant_baseline: float  # mean cosine of the teacher's mean to its embeddings: a constant output's score
    neighbour_agreement: float  # mean share of an image's nearest neighbours that both spaces have, in [0, 1]
    neighbour_chance: float  # the score of random neighbours: k / (M - 1)
    neighbours: int  # k, how many neighbours are compared
    images: int


def centred_cosine(student: Tensor, teacher: Tensor, centre: Tensor | None = None) -> Tensor:
    """Cosine of each student embedding (M x D) to its teacher embedding (M x D), as seen from a common centre.
    The centre (D) is by default the teacher's mean over these rows; for a few rows, give the mean over more data. Returns M
    cosines in [-1, 1], 0 where an embedding is the centre itself; raises ValueError for different shapes.
    """
    student, teacher = _same_shape(student, teacher)
    centre = mean_embedding(teacher) if centre is None else centre.to(teacher)
    return F.cosine_similarity(student - centre, teacher - centre, dim=-1)


def cosine_of_each(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """The plain and the centred cosine of each of M images, whose means :class:`Alignment` has: M twice."""
    student, teacher = _same_shape(student, teacher)
    return F.cosine_similarity(student, teacher, dim=-1), centred_cosine(student, teacher)


def mean_embedding(embeddings: Tensor) -> Tensor:
    """The mean of M x D embeddings: D, summed in float64 so that many rows lose no digits."""
    return embeddings.mean(dim=0, dtype=torch.float64).to(embeddings.dtype)


def measure_alignment(student: Tensor, teacher: Tensor, *, neighbours: int = 10) -> Alignment:
    """Compares a student's embeddings with its teacher's (M x D each, of the same images) by up to ``neighbours`` neighbours.

    Raises ValueError for different shapes, and DataError for fewer than two images.
    """
    student, teacher = _same_shape(student, teacher)
    images = len(teacher)
    if images < 2:
        problem = f"Alignment can only be measured on two images or more, not on {images}."
        raise DataError(problem, "Evaluate on a folder with more readable images.")
    cosine = F.cosine_similarity(student, teacher, dim=-1)
    low, median = torch.quantile(cosine, torch.tensor([0.05, 0.5]).to(cosine)).tolist()
    centre = mean_embedding(teacher)
    compared = min(neighbours, images - 1)
    of_student, of_teacher = (nearest_neighbours(each, each, compared, exclude_self=True).indices for each in (student, teacher))
    return Alignment(
        centred_cosine=centred_cosine(student, teacher, centre).mean().item(),
        cosine_mean=cosine.mean().item(),
        cosine_median=median,
        cosine_p05=low,
        constant_baseline=F.cosine_similarity(centre.unsqueeze(0), teacher, dim=-1).mean().item(),
        neighbour_agreement=(of_student.unsqueeze(2) == of_teacher.unsqueeze(1)).any(dim=2).double().mean().item(),
        neighbour_chance=compared / (images - 1),
        neighbours=compared,
        images=images,
    )


def _same_shape(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one precision, float32 at least; raises ValueError unless both are M x D."""
    if student.ndim != 2 or student.shape != teacher.shape:
        shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ValueError(f"student and teacher embeddings must both be M x D, not {shapes}")
    precision = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(precision), teacher.to(precision)
