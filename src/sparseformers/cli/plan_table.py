"""The table of a plan."""

from __future__ import annotations

from rich.table import Table

from sparseformers.cli.tables import add_costs, duration
from sparseformers.train import Plan


def plan_table(plan: Plan) -> Table:
    """The plan of a dry run, or of a training elsewhere."""
    table = Table(title=f"Plan: bootstrap from {plan.teacher}", show_header=False, title_justify="left")
    for line in plan.inheritance:
        table.add_row("inheritance", line)
    add_costs(table, plan.student_cost, plan.teacher_cost)
    table.add_row("multiply-adds, training", _training_cost(plan))
    table.add_row("images", f"{plan.train_images:,} to learn from, {plan.held_out_images:,} to measure progress on")
    on = f" of {plan.batch_size:,} images on each of {plan.devices:,} devices" if plan.devices > 1 else ""
    table.add_row("length", f"{plan.samples:,} images seen in {plan.steps:,} steps{on} ({plan.precision})")
    _add_times(table, plan)
    _add_data(table, plan)
    table.add_row("memory", f"about {plan.memory_gib:.1f} GiB (measured)")
    for line in plan.assumptions:
        table.add_row("assumed", line)
    return table


def _training_cost(plan: Plan) -> str:
    cost = plan.training_cost
    teacher = f"teacher {cost.teacher_forward / 1e9:.2f} G" if cost.teacher_forward else "teacher cached"
    student = f"student {cost.student_forward / 1e9:.2f} G forward, {cost.student_backward / 1e9:.2f} G backward"
    return f"{cost.total / 1e9:.2f} G for each image seen: {teacher}, {student} (parts that are frozen need less)"


def _add_times(table: Table, plan: Plan) -> None:
    measured = plan.measured
    parts, waiting = measured.parts, f", {measured.data_wait:.0%} of it waiting for images" if measured.reads else ""
    planned = "" if plan.seconds_per_step == measured.step else f"; planned with {plan.seconds_per_step:.4f} s (assumed)"
    table.add_row("a step", f"{measured.step:.3f} s (measured on {plan.device}{waiting}){planned}")
    table.add_row(
        "its parts",
        f"teacher {parts.teacher:.3f} s, student forward {parts.forward:.3f} s, backward {parts.backward:.3f} s, "
        f"optimiser {parts.optimiser:.3f} s (measured one by one)",
    )
    rest = plan.forecast.measuring + plan.forecast.saving
    table.add_row(
        "time",
        f"about {duration(plan.seconds)} ({plan.images_per_second:,.1f} images a second; {duration(rest)} of it for measurements "
        "and checkpoints)",
        style="bold",
    )
    if plan.devices > 1:
        table.add_row("device hours", f"about {plan.devices * plan.seconds / 3600:,.0f}")


def _add_data(table: Table, plan: Plan) -> None:
    table.add_row("to read", f"{_size(plan.bytes_per_second)} a second ({_size(plan.bytes_per_image)} for each image seen)")
    reading = plan.measured.reading
    if reading is not None:
        needed = plan.images_per_second / plan.devices
        verdict = "keeps up" if reading >= needed else "does not keep up"
        table.add_row("reading", f"{reading:.0f} images a second alone, {needed:.0f} needed for each device: {verdict}")
    if plan.cache_gib:
        made = f"about {duration(plan.cache_seconds)} to make" if plan.cache_seconds else "already made"
        table.add_row("cache of views", f"{plan.cache_gib:,.1f} GiB, {made}")
    sizes = plan.sizes
    table.add_row("checkpoint", f"{_size(sizes.checkpoint)}: model {_size(sizes.model)}, AdamW {_size(sizes.optimiser)}")


def _size(count: float) -> str:
    """Bytes as a person would say them."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"
