"""What is reported of a student on images unlike those that it was trained on.

Legend: M images. A cosine here is a centred one: the teacher's mean embedding of the images that it is compared on is
subtracted first, so what all images of a condition have in common counts for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from sparseformers.settings import to_dict


@dataclass(frozen=True)
class ShiftFigures:
    """How one network does in one condition."""

    same_image: float
    """Mean centred cosine of its embedding to the teacher's of the same (changed) image, in [-1, 1]; 1 for the teacher."""
    clean_image: float
    """Mean centred cosine of its embedding to the teacher's of the clean image: how little the change matters to it."""
    top1: float | None
    """Top-1 through the teacher's classifier, in [0, 1]; None where there are no labels for it."""


@dataclass(frozen=True)
class RoIFigures:
    """What the student's RoIs do in one condition, from the first stage to the last; means over tokens and images."""

    movement: float
    """How far their centres move, in sizes of the first RoI (per axis)."""
    size_ratio: float
    """Side of the last RoI over that of the first; the geometric mean of the two axes."""
    on_object_first: float | None
    """Share of the first RoIs' centres that lie on the small object; None where none was made."""
    on_object_last: float | None
    """The same of the last RoIs; above that of the first where the student finds the object."""


@dataclass(frozen=True)
class ShiftRow:
    """One condition."""

    condition: str
    """Its name."""
    loss: float
    """The student's ``same_image`` in the clean condition, minus that in this one: how much of the alignment is lost."""
    student: ShiftFigures
    """Of the student."""
    teacher: ShiftFigures
    """Of the teacher."""
    low_resolution: ShiftFigures | None
    """Of the teacher at a lower resolution, on the student's images; None if it was not asked for."""
    rois: RoIFigures
    """Of the student's RoIs."""


@dataclass(frozen=True)
class PoorImage:
    """An image on which the student is far from its teacher, without any change to it."""

    path: str
    """Its file."""
    cosine: float
    """Centred cosine of the student's embedding to the teacher's."""
    movement: float
    """How far the RoIs move on it, as in :class:`RoIFigures`."""


@dataclass(frozen=True)
class ShiftReport:
    """Where a student loses what it learnt of its teacher."""

    rows: tuple[ShiftRow, ...]
    """The clean condition, then the others by falling loss."""
    worst: tuple[PoorImage, ...]
    """The images that are aligned worst in the clean condition, the worst first."""
    images: int
    """M."""
    skipped: int
    """Images that could not be read; no figure counts them."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return to_dict(self)


def shifts_table(report: ShiftReport, title: str) -> Table:
    """The conditions as a table, the clean one first and then the one in which most is lost."""
    skipped = f", {report.skipped} unreadable skipped" if report.skipped else ""
    table = Table(
        title=title,
        caption=f"{report.images} images{skipped}; centred cosines to the teacher on the same image, and on the clean one",
    )
    table.add_column("condition", no_wrap=True)
    low = any(row.low_resolution for row in report.rows)
    top1 = any(row.teacher.top1 is not None for row in report.rows)
    small = any(row.rois.on_object_last is not None for row in report.rows)
    headers = ["loss", "student\nsame", "\nclean", *(["low res.\nsame", "\nclean"] if low else []), "teacher\nclean"]
    headers += ["student\ntop-1", *(["low res.\ntop-1"] if low else []), "teacher\ntop-1"] if top1 else []
    headers += ["RoIs\nmove", "\nsize", *(["on the\nobject"] if small else [])]
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for row in report.rows:
        networks = [row.student, *([row.low_resolution] if row.low_resolution else []), row.teacher]
        cells = [f"{row.loss:+.3f}"]
        for figures in networks[:-1]:
            cells += [f"{figures.same_image:.3f}", f"{figures.clean_image:.3f}"]
        cells.append(f"{row.teacher.clean_image:.3f}")
        cells += [_percent(figures.top1) for figures in networks] if top1 else []
        cells += [f"{row.rois.movement:.2f}", f"{row.rois.size_ratio:.2f}"]
        cells += [_change(row.rois)] if small else []
        table.add_row(row.condition, *cells)
    return table


def worst_table(worst: Sequence[PoorImage]) -> Table:
    """The images that are aligned worst."""
    table = Table(title="Aligned worst in the clean condition")
    table.add_column("image", overflow="fold")
    table.add_column("cosine", justify="right", no_wrap=True)
    table.add_column("RoIs move", justify="right", no_wrap=True)
    for image in worst:
        table.add_row(image.path, f"{image.cosine:.3f}", f"{image.movement:.2f}")
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _change(rois: RoIFigures) -> str:
    """The share of RoIs on the object, first and last."""
    if rois.on_object_first is None or rois.on_object_last is None:
        return ""
    return f"{rois.on_object_first:.0%} → {rois.on_object_last:.0%}"
