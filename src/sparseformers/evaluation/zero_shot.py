"""Classification by names: an image's class is the one whose embedding in words is nearest. Tensors only, no model.

Legend: M images, C classes, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from sparseformers.errors import DataError
from sparseformers.settings import to_dict


@dataclass(frozen=True)
class Accuracy:
    """How often the right class is among the nearest ones."""

    top1: float
    """Share of images whose own class is the nearest, in [0, 1]."""
    top5: float
    """Share of images whose own class is among the five nearest (or among all, of fewer)."""


@dataclass(frozen=True)
class ZeroShot:
    """A student that has not seen a word beside its teacher, whose text tower names the classes."""

    teacher: Accuracy
    """Of the teacher at its own size."""
    student: Accuracy
    """Of the student."""
    low_resolution: Accuracy
    """Of the teacher on images so small that it has as many tokens as the student; no training."""
    kept: float
    """The student's top-1 over the teacher's; 0 where that is 0."""
    agreement: float
    """Share of images that student and teacher give the same class, right or wrong."""
    chance: float
    """Top-1 of a guess."""
    images: int
    """M."""
    classes: int
    """C."""
    templates: int
    """Sentences that each class name was put in."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return to_dict(self)


def evaluate_zero_shot(
    teacher: Tensor,
    student: Tensor,
    low_resolution: Tensor,
    classes: Tensor,
    labels: Sequence[int] | Tensor,
    *,
    templates: int,
) -> ZeroShot:
    """Compares what three image towers make of the same class embeddings.

    Args:
        teacher: M x D image embeddings.
        student: the same of the student, row by row of the same images.
        low_resolution: the same of the teacher at the lower resolution.
        classes: C x D, the classes' embeddings in words.
        labels: M, each image's class in [0, C).
        templates: how many sentences each class name was put in, for the record.

    Raises:
        DataError: for no image.
        ValueError: for shapes that do not go together.
    """
    labels = torch.as_tensor(labels, dtype=torch.int64)
    ranked = [nearest_classes(embeddings, classes) for embeddings in (teacher, student, low_resolution)]
    of_teacher, of_student, of_low = (accuracy(nearest, labels) for nearest in ranked)
    return ZeroShot(
        teacher=of_teacher,
        student=of_student,
        low_resolution=of_low,
        kept=of_student.top1 / of_teacher.top1 if of_teacher.top1 else 0.0,
        agreement=(ranked[0][:, 0] == ranked[1][:, 0]).double().mean().item(),
        chance=1 / len(classes),
        images=len(labels),
        classes=len(classes),
        templates=templates,
    )


def nearest_classes(embeddings: Tensor, classes: Tensor, k: int = 5) -> Tensor:
    """The classes nearest to each image by cosine, nearest first.

    Args:
        embeddings: M x D.
        classes: C x D.
        k: how many (all, of fewer).

    Returns:
        M x min(k, C), int64.

    Raises:
        ValueError: for widths that differ.
    """
    if embeddings.ndim != 2 or classes.ndim != 2 or embeddings.shape[1] != classes.shape[1]:
        raise ValueError(f"images and classes must be M x D and C x D, not {tuple(embeddings.shape)} and {tuple(classes.shape)}")
    similarities = F.normalize(embeddings.float(), dim=-1) @ F.normalize(classes.float(), dim=-1).T
    return similarities.topk(min(k, len(classes)), dim=1).indices


def accuracy(nearest: Tensor, labels: Tensor) -> Accuracy:
    """How often the label is the first of the nearest classes, and how often it is among them.

    Args:
        nearest: M x k from :func:`nearest_classes`.
        labels: M, int64.

    Raises:
        DataError: for no image.
        ValueError: for another number of labels than of images.
    """
    if len(nearest) != len(labels):
        raise ValueError(f"every image needs a label: {len(labels)} labels of {len(nearest)} images")
    if len(labels) == 0:
        raise DataError("There is no image to classify.", "Give a folder with readable images in its class folders.")
    right = nearest == labels[:, None]
    return Accuracy(right[:, 0].double().mean().item(), right.any(dim=1).double().mean().item())


def zero_shot_table(figures: ZeroShot, title: str, *, low_resolution: str, skipped: int = 0) -> Table:
    """The figures as a table.

    Args:
        figures: what to show.
        title: above it.
        low_resolution: what to call the teacher at the lower resolution, with its size.
        skipped: images that could not be read, for the record.
    """
    unread = f", {skipped} unreadable skipped" if skipped else ""
    sentences = "sentence" if figures.templates == 1 else "sentences"
    caption = f"{figures.images} images{unread}, {figures.classes} classes, {figures.templates} {sentences} for each"
    table = Table(title=f"Zero-shot: {title}", caption=caption)
    table.add_column("", no_wrap=True)
    for column in ("top-1", "top-5", "of the teacher's top-1", "same class as the teacher"):
        table.add_column(column, justify="right")
    table.add_row("teacher", *_shares(figures.teacher), "", "")
    table.add_row("student", *_shares(figures.student), f"{figures.kept:.1%}", f"{figures.agreement:.1%}")
    low = figures.low_resolution.top1 / figures.teacher.top1 if figures.teacher.top1 else 0.0
    table.add_row(low_resolution, *_shares(figures.low_resolution), f"{low:.1%}", "")
    table.add_row("chance", f"{figures.chance:.1%}", "", "", "")
    return table


def _shares(figures: Accuracy) -> tuple[str, str]:
    return f"{figures.top1:.1%}", f"{figures.top5:.1%}"
