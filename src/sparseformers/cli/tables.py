"""Tables that the training commands print."""

from __future__ import annotations

from rich.table import Table

from sparseformers.evaluation import Cost
from sparseformers.train import RunSummary
from sparseformers.train.report.tables import duration as duration


def summary_table(summary: RunSummary) -> Table:
    """What came of a run."""
    alignment = summary.alignment
    table = Table(title=f"Run {summary.path}", show_header=False, title_justify="left")
    table.add_row("held-out centred cosine", f"{alignment.centred_cosine:.3f}", style="bold")
    table.add_row("cosine", f"{alignment.cosine_mean:.3f} (a constant output has {alignment.constant_baseline:.3f})")
    table.add_row(
        f"{alignment.neighbours} nearest neighbours in common",
        f"{alignment.neighbour_agreement:.1%} (chance {alignment.neighbour_chance:.1%})",
    )
    add_costs(table, summary.student_cost, summary.teacher_cost)
    table.add_row("images seen", f"{summary.samples:,} in {duration(summary.seconds)} ({summary.images_per_second:.1f} a second)")
    table.add_row("waiting for data", f"{summary.data_wait:.1%} of the time")
    table.add_row("peak memory", f"{summary.peak_memory_gib:.1f} GiB")
    table.add_row("images skipped", f"{summary.skipped}")
    if summary.non_finite_steps:
        table.add_row("steps skipped", f"{summary.non_finite_steps} with a loss or gradient that is not a finite number")
    if summary.view_cache is not None:
        table.add_row("cache of views", str(summary.view_cache))
    return table


def add_costs(table: Table, student: Cost, teacher: Cost) -> None:
    """Rows of multiply-adds of one forward pass, and of parameters."""
    ratio = student.multiply_adds / teacher.multiply_adds
    table.add_row(
        "multiply-adds",
        f"student {student.multiply_adds / 1e9:.2f} G, teacher {teacher.multiply_adds / 1e9:.2f} G ({ratio:.0%}) "
        f"at {student.size[0]} x {student.size[1]}",
    )
    table.add_row("parameters", f"student {student.parameters / 1e6:.1f} M, teacher {teacher.parameters / 1e6:.1f} M")
