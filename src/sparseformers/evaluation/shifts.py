"""``evaluate --shifts``: how much of the alignment holds on images unlike those of the training, and where RoIs go there.

Legend: M images, D embedding width, N latent tokens. All cosines are centred: the teacher's mean embedding of the images compared
is subtracted first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from sparseformers.data import ImageViews, views_in_order
from sparseformers.errors import DataError
from sparseformers.evaluation.alignment import centred_cosine
from sparseformers.evaluation.conditions import Condition, ImageView, SmallView
from sparseformers.evaluation.embeddings import Answers, ask
from sparseformers.evaluation.report import Report
from sparseformers.model import SparseFormer
from sparseformers.rois import centre_and_size
from sparseformers.teachers import Teacher

STUDENT, TEACHER, LOW_RESOLUTION = "student", "teacher", "low_resolution"


@dataclass(frozen=True)
class ShiftFigures:
    """One network in one condition."""

    same_image: float  # mean centred cosine to the teacher's of the same (changed) image; 1 for the teacher
    clean_image: float  # mean centred cosine to the teacher's of the clean image
    top1: float | None  # top-1 through the teacher's classifier, in [0, 1]; None where there are no labels for it


@dataclass(frozen=True)
class RoIFigures:
    """Movement of RoIs in one condition, from the first stage to the last; means over tokens and images."""

    movement: float  # distance that their centres move, in sizes of the first RoI (per axis)
    size_ratio: float  # side of the last RoI over that of the first; the geometric mean of the two axes
    on_object_first: float | None  # share of the first RoIs' centres that lie on the small object; None where none was made
    on_object_last: float | None  # the same of the last RoIs; above that of the first where the student finds the object


@dataclass(frozen=True)
class ShiftRow:
    """One condition."""

    condition: str
    loss: float  # the student's ``same_image`` in the clean condition, minus that in this one: how much of the alignment is lost
    student: ShiftFigures
    teacher: ShiftFigures
    low_resolution: ShiftFigures | None  # the teacher at a lower resolution; None if not asked for
    rois: RoIFigures | None  # None of a student whose RoIs cannot move


@dataclass(frozen=True)
class PoorImage:
    """An image on which the student is far from its teacher, without any change to it."""

    path: str
    cosine: float  # centred cosine of the student's embedding to the teacher's
    movement: float | None  # distance that the RoIs move on it, as in :class:`RoIFigures`


@dataclass(frozen=True)
class ShiftReport(Report):
    """Loss of alignment by condition."""

    rows: tuple[ShiftRow, ...]  # the clean condition, then the others by falling loss
    worst: tuple[PoorImage, ...]  # the images that are aligned worst in the clean condition, the worst first
    images: int
    skipped: int  # images that could not be read; no figure counts them
    skipped_images: tuple[str, ...] = ()

    def tables(self, title: str) -> list[Table]:
        """The conditions, the clean one first and then the one in which most is lost; and the images aligned worst."""
        return [_conditions_table(self, title), _worst_table(self.worst)]


AllAnswers = Mapping[tuple[str, ImageView], Answers]  # by network and by what it saw of the images; all of the same images


def views_of(conditions: Iterable[Condition]) -> dict[ImageView, set[str]]:
    """Each different view of the images, with the networks that see it; for each, one pass over the images is made."""
    views: dict[ImageView, set[str]] = {}
    for condition in conditions:
        views.setdefault(condition.student, set()).update((STUDENT, LOW_RESOLUTION))
        views.setdefault(condition.teacher, set()).add(TEACHER)
    return views


def measure_shifts(
    student: SparseFormer,
    teacher: Teacher,
    paths: Sequence[Path],
    conditions: Sequence[Condition],
    *,
    labels: Sequence[int] | None = None,
    low_resolution: nn.Module | None = None,
    seed: int = 0,
    worst: int = 10,
    batch_size: int = 32,
    workers: int = 0,
    **running: Any,
) -> ShiftReport:
    """Measures a student beside its teacher in conditions, under inference mode and in evaluation mode (restored afterwards).

    ``conditions`` are those of :func:`~sparseformers.evaluation.conditions.shift_conditions`, the clean one first. The student
    sees all of them, and so does ``low_resolution``, the teacher at a lower resolution; the teacher sees its own size only.
    ``labels`` are the right output of its classifier for each image, if known; ``worst`` images that are aligned worst are named.
    What is random in conditions comes from ``seed``, for each image the same every time. How networks are run, and who is told
    of each pass, is as for :func:`~sparseformers.evaluation.embed`. Raises DataError if fewer than two images can be read.
    """
    networks: dict[str, nn.Module] = {STUDENT: student, TEACHER: teacher}
    if low_resolution is not None:
        networks[LOW_RESOLUTION] = low_resolution
    asked: dict[tuple[str, ImageView], tuple[Tensor, Answers]] = {}
    readable = torch.arange(len(paths))
    for view, names in views_of(conditions).items():
        batches = views_in_order(ImageViews(paths, view, seed=seed), epochs=1, batch_size=batch_size, workers=workers)
        shown = {name: network for name, network in networks.items() if name in names}
        found, answered = ask([*shown.values()], batches, keep_rois=True, **running)
        asked |= {(name, view): (found, own) for name, own in zip(shown, answered, strict=True)}
        # A file may go while the others are measured: what is compared is of the same images throughout.
        readable = readable[torch.isin(readable, found)]
        if len(readable) < 2:
            problem = f"Shifts can only be measured on two images or more, not on {len(readable)}."
            raise DataError(problem, "Evaluate on a folder with more readable images.")
    answers = {key: own.of(torch.isin(found, readable)) for key, (found, own) in asked.items()}
    images = readable.tolist()
    rows = _rows(answers, conditions, None if labels is None else torch.as_tensor(labels)[readable], seed, images)
    poor = _worst(answers, conditions[0], [str(paths[index]) for index in images], worst)
    return ShiftReport((rows[0], *sorted(rows[1:], key=lambda row: -row.loss)), poor, len(images), len(paths) - len(images))


def _rows(
    answers: AllAnswers, conditions: Sequence[Condition], labels: Tensor | None, seed: int, images: Sequence[int]
) -> list[ShiftRow]:
    """A row for each condition; the answers are to these images, with these labels."""
    clean = answers[TEACHER, conditions[0].teacher]
    rows: list[ShiftRow] = []
    for condition in conditions:
        target, seen = answers[TEACHER, condition.teacher], answers[STUDENT, condition.student]
        low = answers.get((LOW_RESOLUTION, condition.student))
        student, teacher = (_figures(each, target, clean, labels) for each in (seen, target))
        small = None if low is None else _figures(low, target, clean, labels)
        loss = rows[0].student.same_image - student.same_image if rows else 0.0
        rois = None if seen.rois is None else _roi_figures(seen.rois, condition, seed, images)
        rows.append(ShiftRow(condition.name, loss, student, teacher, small, rois))
    return rows


def _figures(answers: Answers, target: Answers, clean: Answers, labels: Tensor | None) -> ShiftFigures:
    """Figures of one network: ``target`` and ``clean`` are the teacher's answers to the same and to the clean images."""
    top1 = None if labels is None or answers.logits is None else (answers.logits.argmax(dim=1) == labels).double().mean().item()
    same, of_clean = (centred_cosine(answers.embedding, other.embedding).mean().item() for other in (target, clean))
    return ShiftFigures(same_image=same, clean_image=of_clean, top1=top1)


def _roi_figures(rois: Tensor, condition: Condition, seed: int, images: Sequence[int]) -> RoIFigures:
    centres, sizes = centre_and_size(rois)  # M x 2 x N x 2 each
    ratio = (sizes[:, 1] / sizes[:, 0].clamp_min(1e-6)).prod(dim=-1).sqrt()
    shares: list[float | None] = [None, None]
    if isinstance(condition.student, SmallView):
        boxes = torch.tensor([condition.student.object_box(seed, index) for index in images])[:, None, None]
        inside = ((centres >= boxes[..., :2]) & (centres <= boxes[..., 2:])).all(dim=-1)  # M x 2 x N
        shares = inside.float().mean(dim=(0, 2)).tolist()
    return RoIFigures(_movement(rois).mean().item(), ratio.mean().item(), *shares)


def _movement(rois: Tensor) -> Tensor:
    """Distance that each image's RoIs (M x 2 x N x 4) move between the first and the last stage, in sizes of the first: M."""
    centres, sizes = centre_and_size(rois)
    return ((centres[:, 1] - centres[:, 0]) / sizes[:, 0].clamp_min(1e-6)).norm(dim=-1).mean(dim=-1)


def _worst(answers: AllAnswers, clean: Condition, names: Sequence[str], count: int) -> tuple[PoorImage, ...]:
    """The images that are aligned worst; ``names`` are those of the answers' rows."""
    student = answers[STUDENT, clean.student]
    cosines = centred_cosine(student.embedding, answers[TEACHER, clean.teacher].embedding)
    movement = None if student.rois is None else _movement(student.rois).tolist()
    order = cosines.argsort()[:count].tolist()
    return tuple(PoorImage(names[row], cosines[row].item(), movement[row] if movement else None) for row in order)


def _conditions_table(report: ShiftReport, title: str) -> Table:
    skipped = f", {report.skipped} unreadable skipped" if report.skipped else ""
    caption = f"{report.images} images{skipped}; centred cosines to the teacher on the same image, and on the clean one"
    table = Table(title=title, caption=caption)
    table.add_column("condition", no_wrap=True)
    low = any(row.low_resolution for row in report.rows)
    top1 = any(row.teacher.top1 is not None for row in report.rows)
    rois = any(row.rois for row in report.rows)
    headers = ["loss", "student\nsame", "\nclean", *(["low res.\nsame", "\nclean"] if low else []), "teacher\nclean"]
    headers += ["student\ntop-1", *(["low res.\ntop-1"] if low else []), "teacher\ntop-1"] if top1 else []
    small = any(row.rois is not None and row.rois.on_object_last is not None for row in report.rows)
    headers += ["RoIs\nmove", "\nsize", *(["on the\nobject"] if small else [])] if rois else []
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for row in report.rows:
        networks = [row.student, *([row.low_resolution] if row.low_resolution else []), row.teacher]
        cells = [f"{row.loss:+.3f}"]
        for figures in networks[:-1]:
            cells += [f"{figures.same_image:.3f}", f"{figures.clean_image:.3f}"]
        cells.append(f"{row.teacher.clean_image:.3f}")
        cells += ["" if figures.top1 is None else f"{figures.top1:.1%}" for figures in networks] if top1 else []
        if row.rois is not None:
            first, last = row.rois.on_object_first, row.rois.on_object_last
            cells += [f"{row.rois.movement:.2f}", f"{row.rois.size_ratio:.2f}"]
            cells += ["" if first is None or last is None else f"{first:.0%} → {last:.0%}"] if small else []
        table.add_row(row.condition, *cells)
    return table


def _worst_table(worst: Sequence[PoorImage]) -> Table:
    table = Table(title="Aligned worst in the clean condition")
    table.add_column("image", overflow="fold")
    table.add_column("cosine", justify="right", no_wrap=True)
    moving = any(image.movement is not None for image in worst)
    if moving:
        table.add_column("RoIs move", justify="right", no_wrap=True)
    for image in worst:
        table.add_row(image.path, f"{image.cosine:.3f}", *([f"{image.movement:.2f}"] if moving else []))
    return table
