"""What ``profile`` reports: the cost of a student beside its teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.table import Table
from torch import nn

from sparseformers.evaluation.cost import Cost, Latency, compare_latency, measure_cost
from sparseformers.settings import to_dict


@dataclass(frozen=True)
class Profile:
    """The cost of a student, and of its teacher where there is one at hand."""

    student: Cost
    """Parameters and multiply-adds of the student."""
    student_latency: tuple[Latency, ...] = ()
    """Its time on this machine, one per batch size; empty if not measured."""
    teacher: Cost | None = None
    """Parameters and multiply-adds of the teacher."""
    teacher_latency: tuple[Latency, ...] = ()
    """The teacher's time, at the same batch sizes and in the same run."""
    parameter_groups: Mapping[str, int] = field(default_factory=dict)
    """Parameters of the student by what bootstrapping does with them: new, tuned, frozen; empty where not known."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return to_dict(self) | {"parameter_groups": dict(self.parameter_groups)}


def measure_profile(
    student: nn.Module,
    student_size: tuple[int, int],
    *,
    teacher: nn.Module | None = None,
    teacher_size: tuple[int, int] | None = None,
    parameter_groups: Mapping[str, int] | None = None,
    batches: Sequence[int] = (1, 16),
    repeats: int = 10,
    device: torch.device | str,
    autocast: torch.dtype | None,
) -> Profile:
    """Measures a student and its teacher: same precision, same machine, interleaved.

    Args:
        student: a SparseFormer on ``device``.
        student_size: height and width of its images in pixels.
        teacher: a teacher on ``device``, if there is one to compare with.
        teacher_size: height and width of its images; the student's by default.
        parameter_groups: how many of the student's parameters are new, tuned and frozen, where known.
        batches: batch sizes to time; none to leave time out.
        repeats: timed passes of each at each batch size.
        device: where both are.
        autocast: precision to time both in; None for their own.
    """
    models, sizes = {"student": student}, {"student": student_size}
    if teacher is not None:
        models["teacher"], sizes["teacher"] = teacher, teacher_size or student_size
    latencies = compare_latency(models, sizes, batches=batches, repeats=repeats, device=device, autocast=autocast)
    return Profile(
        student=measure_cost(student, student_size),
        student_latency=tuple(latencies["student"]),
        teacher=None if teacher is None else measure_cost(teacher, sizes["teacher"]),
        teacher_latency=tuple(latencies.get("teacher", ())),
        parameter_groups=dict(parameter_groups or {}),
    )


def profile_table(profile: Profile, title: str) -> Table:
    """The profile as a table: student, and beside it the teacher and how many times cheaper the student is."""
    caption = "multiply-adds: matrix products of one image, those of attention included; the papers count layers alone"
    table = Table(title=title, caption=caption)
    student, teacher = profile.student, profile.teacher
    table.add_column("measure")
    for column in ("student", *(("teacher", "teacher / student") if teacher else ())):
        table.add_column(column, justify="right")
    table.add_row("image, pixels", _size(student), *((_size(teacher),) if teacher else ()))
    _add(table, "parameters, M", student.parameters / 1e6, teacher.parameters / 1e6 if teacher else None)
    for group, count in profile.parameter_groups.items():
        table.add_row(f"  {group}", f"{count / 1e6:.1f}")
    _add(table, "multiply-adds, G", student.multiply_adds / 1e9, teacher.multiply_adds / 1e9 if teacher else None, digits=2)
    if student.published_multiply_adds is not None:
        beside = teacher.published_multiply_adds if teacher else None
        as_published = None if beside is None else beside / 1e9
        _add(table, "  as the papers count", student.published_multiply_adds / 1e9, as_published, digits=2)
    of_teacher = {latency.batch: latency for latency in profile.teacher_latency}
    for latency in profile.student_latency:
        other = of_teacher.get(latency.batch)
        name = f"batch {latency.batch}"
        _add(table, f"{name}: latency, ms", latency.milliseconds_median, other.milliseconds_median if other else None)
        _add(table, f"{name}: images/s", latency.images_per_second, other.images_per_second if other else None)
    return table


def _add(table: Table, measure: str, student: float, teacher: float | None, *, digits: int = 1) -> None:
    """A row of figures; with the ratio where there is a teacher's."""
    cells = [f"{student:.{digits}f}"]
    if teacher is not None:
        cells += [f"{teacher:.{digits}f}", f"{teacher / student:.2f}" if student else ""]
    table.add_row(measure, *cells)


def _size(cost: Cost) -> str:
    return f"{cost.size[0]} x {cost.size[1]}"
