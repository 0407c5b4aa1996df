"""Nearest neighbours by cosine, and the classifier that they make; in chunks, so that memory stays bounded."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SIMILARITIES_AT_ONCE = 1 << 24
"""How many similarities are held at once: 64 MiB of float32."""


class Neighbours(NamedTuple):
    """The k nearest rows of an index to each of Q queries, nearest first."""

    similarities: Tensor
    """Q x k, cosines in [-1, 1]."""
    indices: Tensor
    """Q x k, int64: rows of the index."""


def nearest_neighbours(
    queries: Tensor, index: Tensor, k: int, *, exclude_self: bool = False, at_once: int = SIMILARITIES_AT_ONCE
) -> Neighbours:
    """Finds the nearest rows of an index by cosine, exactly.

    Args:
        queries: Q x D.
        index: M x D.
        k: how many, from 1 to M (to M - 1 with ``exclude_self``).
        exclude_self: query i stands for the same image as row i of the index, which is no neighbour of its own.
        at_once: how many similarities to hold at once; the result does not depend on it.

    Raises:
        ValueError: for widths that differ, a k out of range, or Q other than M with ``exclude_self``.
    """
    if queries.ndim != 2 or index.ndim != 2 or queries.shape[1] != index.shape[1]:
        raise ValueError(f"queries and index must be Q x D and M x D, not {tuple(queries.shape)} and {tuple(index.shape)}")
    if exclude_self and len(queries) != len(index):
        raise ValueError(f"only an index of the queries themselves has a self to exclude, not {len(index)} for {len(queries)}")
    if not 1 <= k <= len(index) - exclude_self:
        raise ValueError(f"k must be from 1 to {len(index) - exclude_self}, not {k}")
    queries, index = _unit_rows(queries), _unit_rows(index)
    similarities, indices = [], []
    rows = max(1, at_once // len(index))
    for start in range(0, len(queries), rows):
        chunk = queries[start : start + rows] @ index.T  # rows x M
        if exclude_self:
            chunk.diagonal(offset=start).fill_(-torch.inf)
        nearest = chunk.topk(k, dim=1)
        similarities.append(nearest.values)
        indices.append(nearest.indices)
    if not similarities:
        return Neighbours(queries.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=queries.device))
    return Neighbours(torch.cat(similarities), torch.cat(indices))


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

    Each of the k nearest neighbours votes for its class with the weight exp(cosine / temperature).

    Args:
        queries: Q x D, Q >= 1.
        query_labels: Q, integers in [0, classes).
        index: M x D.
        index_labels: M, integers in [0, classes).
        classes: how many there are.
        k: how many neighbours vote (fewer where the index holds fewer).
        temperature: above 0; the lower, the more the nearest ones decide.
        exclude_self: leave-one-out: query i stands for the same image as row i of the index.

    Returns:
        The share of queries whose own class gets the most votes, in [0, 1].

    Raises:
        ValueError: for labels that do not go with the rows, or no queries.
    """
    if len(queries) == 0 or len(query_labels) != len(queries) or len(index_labels) != len(index):
        raise ValueError(
            f"every row needs a label and there must be queries: {len(query_labels)} labels of {len(queries)} queries, "
            f"{len(index_labels)} of {len(index)} rows of the index"
        )
    index_labels = index_labels.to(queries.device)
    found = nearest_neighbours(queries, index, min(k, len(index) - exclude_self), exclude_self=exclude_self)
    # Relative to the nearest, which changes no comparison and keeps low temperatures from overflowing.
    weights = ((found.similarities - found.similarities[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(queries), classes).scatter_add_(1, index_labels[found.indices], weights)
    return (votes.argmax(dim=1) == query_labels.to(votes.device)).double().mean().item()


def _unit_rows(embeddings: Tensor) -> Tensor:
    """Rows of length 1, in float32 at least."""
    return F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=-1)
