"""A student beside its teacher on one set of images: alignment always, accuracies where the images come in class folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from sparseformers.evaluation.alignment import Alignment, knn_accuracy, measure_alignment
from sparseformers.evaluation.embeddings import Embedded
from sparseformers.settings import to_dict


class Report:
    """A result that is written as JSON; a dataclass."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return to_dict(self)


@dataclass(frozen=True)
class Evaluation(Report):
    """A student beside its teacher on one set of images; accuracies are shares in [0, 1], None where they cannot be had."""

    alignment: Alignment
    knn_teacher: float | None = None  # weighted k-nearest-neighbour top-1 (k = 20, temperature 0.07) of the teacher
    knn_student: float | None = None  # the same of the student, in its own index
    knn_drop_in: float | None = None  # the same of the student's queries against the teacher's index: the drop-in case
    classifier_teacher: float | None = None  # top-1 of the teacher's own classifier
    classifier_student: float | None = None  # top-1 of that classifier on the student's embeddings
    classifier_agreement: float | None = None  # share of images with the same top-1 class; needs no labels
    skipped: int = 0  # images that could not be read; no figure counts them
    skipped_images: tuple[str, ...] = ()  # their names and what was wrong with them

    def tables(self, title: str) -> list[Table]:
        """One table: centred cosine first, and beside it what a constant output or chance would score."""
        alignment = self.alignment
        skipped = f", {self.skipped} unreadable skipped" if self.skipped else ""
        table = Table(title=title, caption=f"{alignment.images} images{skipped}")
        table.add_column("measure")
        for column in ("teacher", "student", "baseline"):
            table.add_column(column, justify="right")
        table.add_row("centred cosine to the teacher", "", f"{alignment.centred_cosine:.3f}", "0.000 (constant output)")
        table.add_row("cosine, mean", "", f"{alignment.cosine_mean:.3f}", f"{alignment.constant_baseline:.3f} (constant output)")
        table.add_row("cosine, median", "", f"{alignment.cosine_median:.3f}", "")
        table.add_row("cosine, 5th percentile", "", f"{alignment.cosine_p05:.3f}", "")
        agreement, chance = f"{alignment.neighbour_agreement:.1%}", f"{alignment.neighbour_chance:.1%} (chance)"
        table.add_row(f"agreement of the {alignment.neighbours} nearest neighbours", "", agreement, chance)
        for measure, teacher, student in (
            ("k-NN top-1", self.knn_teacher, self.knn_student),
            ("k-NN top-1 in the teacher's index", self.knn_teacher, self.knn_drop_in),
            ("classifier top-1", self.classifier_teacher, self.classifier_student),
            ("same top-1 class as the teacher", None, self.classifier_agreement),
        ):
            if teacher is not None or student is not None:
                table.add_row(measure, *("" if share is None else f"{share:.1%}" for share in (teacher, student)), "")
        return [table]


def evaluate_unlabelled(embedded: Embedded, *, skipped: int = 0) -> Evaluation:
    """Evaluates what needs no labels; ``skipped`` images could not be read. Raises DataError for fewer than two images."""
    student, teacher, agreement = embedded.student_logits, embedded.teacher_logits, None
    if student is not None and teacher is not None and student.shape == teacher.shape:
        agreement = (student.argmax(dim=1) == teacher.argmax(dim=1)).double().mean().item()
    alignment = measure_alignment(embedded.student, embedded.teacher)
    return Evaluation(alignment=alignment, classifier_agreement=agreement, skipped=skipped)


def evaluate_labelled(
    embedded_test: Embedded,
    test_labels: Sequence[int] | Tensor,
    embedded_index: Embedded,
    index_labels: Sequence[int] | Tensor,
    class_count: int,
    same_split: bool,
    *,
    class_names: Sequence[str] | None = None,
    teacher_class_names: Sequence[str] | None = None,
    skipped: int = 0,
) -> Evaluation:
    """Evaluates alignment, k-nearest-neighbour classification and the inherited classifier.

    The images of ``embedded_test`` are classified, those of ``embedded_index`` vote; with ``same_split`` they are the same, and
    no image votes for itself (leave-one-out). Labels are the class of *every* image of a split in [0, class_count), unreadable
    ones included, and ``class_names`` theirs in order (class folders). ``teacher_class_names`` are those of the classifier's
    outputs, where known; without a match there is no top-1.
    """
    unlabelled = evaluate_unlabelled(embedded_test, skipped=skipped)
    labels, voters = _labels_of(embedded_test, test_labels), _labels_of(embedded_index, index_labels)

    def knn(queries: Tensor, index: Tensor) -> float:
        return knn_accuracy(queries, labels, index, voters, classes=class_count, exclude_self=same_split)

    outputs = list(range(class_count)) if class_names is None else align_labels(class_names, teacher_class_names)
    return replace(
        unlabelled,
        knn_teacher=knn(embedded_test.teacher, embedded_index.teacher),
        knn_student=knn(embedded_test.student, embedded_index.student),
        knn_drop_in=knn(embedded_test.student, embedded_index.teacher),
        classifier_teacher=_top1(embedded_test.teacher_logits, labels, outputs),
        classifier_student=_top1(embedded_test.student_logits, labels, outputs),
    )


def align_labels(class_names: Sequence[str], teacher_class_names: Sequence[str] | None) -> list[int] | None:
    """The classifier's output of each class folder (in order without names); None if a name is no output's, or several'."""
    if teacher_class_names is None:
        return list(range(len(class_names)))
    outputs = {name: output for output, name in enumerate(teacher_class_names)}
    if len(outputs) < len(teacher_class_names) or any(name not in outputs for name in class_names):
        return None
    return [outputs[name] for name in class_names]


def _labels_of(embedded: Embedded, labels: Sequence[int] | Tensor) -> Tensor:
    """The label of each row; rows are fewer than images where some could not be read."""
    return torch.as_tensor(labels, dtype=torch.int64)[embedded.indices]


def _top1(logits: Tensor | None, labels: Tensor, outputs: list[int] | None) -> float | None:
    """Share of rows whose highest logit is that of their label; None unless each logit stands for one class."""
    if logits is None or outputs is None or logits.shape[1] != len(outputs):
        return None
    return (logits.argmax(dim=1) == torch.tensor(outputs)[labels]).double().mean().item()
