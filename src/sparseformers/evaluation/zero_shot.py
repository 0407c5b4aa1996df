"""Zero-shot classification by the names of classes, and image-text retrieval. Tensors only, no model.

Legend: M images, C classes, T captions (one or several an image), D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from sparseformers.errors import DataError
from sparseformers.evaluation.alignment import nearest_neighbours

RANKS = (1, 5, 10)  # numbers of nearest ones that count in retrieval


@dataclass(frozen=True)
class Accuracy:
    """Share of images whose right class is among the nearest ones, in [0, 1]."""

    top1: float
    top5: float  # with fewer than five classes, all count


@dataclass(frozen=True)
class ZeroShot:
    """A student that has not seen a word beside its teacher, whose text tower names the classes."""

    teacher: Accuracy
    student: Accuracy
    low_resolution: Accuracy  # the teacher on images so small that it has as many tokens as the student; no training
    kept: float  # the student's top-1 over the teacher's; 0 where that is 0
    agreement: float  # share of images that student and teacher give the same class, right or wrong
    chance: float  # top-1 of a guess
    images: int
    classes: int
    templates: int  # sentences that each class name was put in

    def table(self, title: str, *, low_resolution: str, skipped: int = 0) -> Table:
        """The figures; ``low_resolution`` names the teacher at its lower resolution, ``skipped`` images could not be read."""
        unread = f", {skipped} unreadable skipped" if skipped else ""
        sentences = "sentence" if self.templates == 1 else "sentences"
        caption = f"{self.images} images{unread}, {self.classes} classes, {self.templates} {sentences} for each"
        table = Table(title=f"Zero-shot: {title}", caption=caption)
        table.add_column("", no_wrap=True)
        for column in ("top-1", "top-5", "of the teacher's top-1", "same class as the teacher"):
            table.add_column(column, justify="right")
        low = self.low_resolution.top1 / self.teacher.top1 if self.teacher.top1 else 0.0
        table.add_row("teacher", *_percent(self.teacher.top1, self.teacher.top5), "", "")
        table.add_row("student", *_percent(self.student.top1, self.student.top5, self.kept, self.agreement))
        table.add_row(low_resolution, *_percent(self.low_resolution.top1, self.low_resolution.top5, low), "")
        table.add_row("chance", *_percent(self.chance), "", "", "")
        return table


@dataclass(frozen=True)
class Recall:
    """Share of queries to which one of the nearest 1, 5 and 10 of the other kind, by cosine, belongs."""

    at_1: float
    at_5: float
    at_10: float


@dataclass(frozen=True)
class RetrievalFigures:
    """One image tower's recall in both directions."""

    image_to_text: Recall  # queries are images; any of an image's captions counts
    text_to_image: Recall  # queries are captions; the one image counts


@dataclass(frozen=True)
class Retrieval:
    """Three image towers on the same captions."""

    teacher: RetrievalFigures
    student: RetrievalFigures
    low_resolution: RetrievalFigures  # the teacher on images so small that it has as many tokens as the student; no training
    images: int
    captions: int

    def table(self, title: str, *, low_resolution: str, skipped: int = 0) -> Table:
        """The figures, as :meth:`ZeroShot.table`; captions of skipped images are left out."""
        unread = f", {skipped} unreadable skipped" if skipped else ""
        table = Table(title=f"Retrieval: {title}", caption=f"{self.images} images{unread}, {self.captions} captions")
        table.add_column("", no_wrap=True)
        for direction in ("image to text", "text to image"):
            for rank in RANKS:
                table.add_column(f"{direction}\nR@{rank}", justify="right", no_wrap=True)
        for name, row in (("teacher", self.teacher), ("student", self.student), (low_resolution, self.low_resolution)):
            recalls = (row.image_to_text, row.text_to_image)
            table.add_row(name, *_percent(*(share for each in recalls for share in (each.at_1, each.at_5, each.at_10))))
        return table


def _percent(*shares: float) -> list[str]:
    return [f"{share:.1%}" for share in shares]


def evaluate_zero_shot(
    teacher: Tensor, student: Tensor, low_resolution: Tensor, classes: Tensor, labels: Sequence[int] | Tensor, *, templates: int
) -> ZeroShot:
    """Compares the images of three towers (M x D each) by the same classes (C x D); ``labels`` are M. DataError for no image."""
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
    """The k classes (C x D) nearest to each image (M x D) by cosine, nearest first: M x min(k, C), int64."""
    if embeddings.ndim != 2 or classes.ndim != 2 or embeddings.shape[1] != classes.shape[1]:
        raise ValueError(f"images and classes must be M x D and C x D, not {tuple(embeddings.shape)} and {tuple(classes.shape)}")
    similarities = F.normalize(embeddings.float(), dim=-1) @ F.normalize(classes.float(), dim=-1).T
    return similarities.topk(min(k, len(classes)), dim=1).indices


def accuracy(nearest: Tensor, labels: Tensor) -> Accuracy:
    """Shares of images whose label (M) is the first of the nearest classes (M x k), and among them; DataError for no image."""
    if len(nearest) != len(labels):
        raise ValueError(f"every image needs a label: {len(labels)} labels of {len(nearest)} images")
    if len(labels) == 0:
        raise DataError("There is no image to classify.", "Give a folder with readable images in its class folders.")
    right = nearest == labels[:, None]
    return Accuracy(right[:, 0].double().mean().item(), right.any(dim=1).double().mean().item())


def evaluate_retrieval(
    teacher: Tensor, student: Tensor, low_resolution: Tensor, texts: Tensor, image_of: Sequence[int] | Tensor
) -> Retrieval:
    """Compares what three image towers (M x D each) find by the same captions (T x D); as :func:`recalls`."""
    image_of = torch.as_tensor(image_of, dtype=torch.int64)
    of_teacher, of_student, of_low = (recalls(rows, texts, image_of) for rows in (teacher, student, low_resolution))
    return Retrieval(of_teacher, of_student, of_low, images=len(teacher), captions=len(texts))


def recalls(images: Tensor, texts: Tensor, image_of: Tensor) -> RetrievalFigures:
    """Recall at 1, 5 and 10 in both directions, of M x D images and T x D captions; ``image_of`` (T) has each caption's image.

    Raises DataError for no image or no caption; ValueError for shapes that do not fit, or an image without a caption.
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
    """Recall by whether each of the nearest (queries x k, nearest first) belongs to the query."""
    return Recall(*(found[:, :rank].any(dim=1).double().mean().item() for rank in RANKS))
