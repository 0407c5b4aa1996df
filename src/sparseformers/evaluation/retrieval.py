"""Image-text retrieval: how often what belongs together is found among the nearest. Tensors only, no model.

Legend: M images, T captions (one or several an image), D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from sparseformers.errors import DataError
from sparseformers.evaluation.neighbours import nearest_neighbours
from sparseformers.settings import to_dict

RANKS = (1, 5, 10)
"""How many of the nearest count."""


@dataclass(frozen=True)
class Recall:
    """How often one is found among the nearest of the other kind, by cosine; shares in [0, 1]."""

    at_1: float
    """The nearest one belongs to the query."""
    at_5: float
    """One of the five nearest does (of all, if there are fewer)."""
    at_10: float
    """One of the ten nearest does (of all, if there are fewer)."""


@dataclass(frozen=True)
class RetrievalFigures:
    """One image tower's recall in both directions."""

    image_to_text: Recall
    """Queries are images; any of an image's captions counts."""
    text_to_image: Recall
    """Queries are captions; the one image counts."""


@dataclass(frozen=True)
class Retrieval:
    """Three image towers on the same captions."""

    teacher: RetrievalFigures
    """Of the teacher at its own size."""
    student: RetrievalFigures
    """Of the student."""
    low_resolution: RetrievalFigures
    """Of the teacher on images so small that it has as many tokens as the student; no training."""
    images: int
    """M."""
    captions: int
    """T."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return to_dict(self)


def evaluate_retrieval(
    teacher: Tensor, student: Tensor, low_resolution: Tensor, texts: Tensor, image_of: Sequence[int] | Tensor
) -> Retrieval:
    """Compares what three image towers find by the same captions.

    Args:
        teacher: M x D image embeddings.
        student: the same of the student, row by row of the same images.
        low_resolution: the same of the teacher at the lower resolution.
        texts: T x D, the captions' embeddings.
        image_of: T, the row of each caption's image in [0, M).

    Raises:
        DataError: for no image or no caption.
        ValueError: for shapes that do not go together.
    """
    image_of = torch.as_tensor(image_of, dtype=torch.int64)
    of_teacher, of_student, of_low = (recalls(rows, texts, image_of) for rows in (teacher, student, low_resolution))
    return Retrieval(of_teacher, of_student, of_low, images=len(teacher), captions=len(texts))


def recalls(images: Tensor, texts: Tensor, image_of: Tensor) -> RetrievalFigures:
    """Recall at 1, 5 and 10 in both directions.

    Args:
        images: M x D.
        texts: T x D.
        image_of: T, the row of each caption's image in [0, M); every image has a caption.

    Raises:
        DataError: for no image or no caption.
        ValueError: for another number of captions in ``image_of``, widths that differ, or an image without a caption.
    """
    if len(images) == 0 or len(texts) == 0:
        raise DataError("There is no image with a caption to look for.", "Give a captions file whose images can be read.")
    if len(image_of) != len(texts):
        raise ValueError(f"every caption needs its image: {len(image_of)} images of {len(texts)} captions")
    if not torch.equal(image_of.unique(), torch.arange(len(images))):
        raise ValueError(f"the captions' images must be all of 0 to {len(images) - 1}")
    by_image = image_of[nearest_neighbours(images, texts, min(max(RANKS), len(texts))).indices]  # M x k: whose captions
    by_text = nearest_neighbours(texts, images, min(max(RANKS), len(images))).indices  # T x k
    return RetrievalFigures(_recall(by_image == torch.arange(len(images))[:, None]), _recall(by_text == image_of[:, None]))


def _recall(found: Tensor) -> Recall:
    """Whether each of the nearest, queries x k and nearest first, belongs to the query."""
    return Recall(*(found[:, :rank].any(dim=1).double().mean().item() for rank in RANKS))


def retrieval_table(figures: Retrieval, title: str, *, low_resolution: str, skipped: int = 0) -> Table:
    """The figures as a table.

    Args:
        figures: what to show.
        title: above it.
        low_resolution: what to call the teacher at the lower resolution, with its size.
        skipped: images that could not be read, for the record; their captions are left out.
    """
    unread = f", {skipped} unreadable skipped" if skipped else ""
    table = Table(title=f"Retrieval: {title}", caption=f"{figures.images} images{unread}, {figures.captions} captions")
    table.add_column("", no_wrap=True)
    for direction in ("image to text", "text to image"):
        for rank in RANKS:
            table.add_column(f"{direction}\nR@{rank}", justify="right", no_wrap=True)
    rows: Mapping[str, RetrievalFigures] = {
        "teacher": figures.teacher,
        "student": figures.student,
        low_resolution: figures.low_resolution,
    }
    for name, row in rows.items():
        shares = [(recall.at_1, recall.at_5, recall.at_10) for recall in (row.image_to_text, row.text_to_image)]
        table.add_row(name, *(f"{share:.1%}" for direction in shares for share in direction))
    return table
