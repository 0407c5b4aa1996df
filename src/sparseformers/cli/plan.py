"""``sparseformers plan``, and what ``bootstrap --dry-run`` prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table

from sparseformers.cli.output import console_for, duration, print_json
from sparseformers.settings import to_dict
from sparseformers.train.plan import PlanConfig, Scale
from sparseformers.train.recipe import expand_recipe as expand_recipe
from sparseformers.train.recipe import with_recipe
from sparseformers.train.settings import BootstrapConfig

if TYPE_CHECKING:
    from sparseformers.train.plan import TrainingPlan


@dataclass(frozen=True)
class Plan:
    """Tell what a bootstrapping costs before it starts: steps, time, memory, bytes to read, sizes of checkpoints.

    Some steps are made on this machine, with the images under --data where these are given. Takes the settings of bootstrap, with
    the same meaning: --batch-size counts the images of all devices together.

    Example: sparseformers plan --teacher timm:vit_base_patch16_224.augreg_in21k_ft_in1k --images 1.3e9 --devices 64
    --batch-size 2048
    """

    settings: Annotated[PlanConfig, tyro.conf.arg(name="")]
    scale: Annotated[Scale, tyro.conf.arg(name="")] = field(default_factory=Scale)
    recipe: str | None = None
    """A recipe to start from, such as paper, or a TOML file; flags that are given here count more than what it sets."""
    json: bool = False
    """Print the plan as JSON."""

    def run(self) -> None:
        print_plan(with_recipe(self.settings, self.recipe), self.scale, as_json=self.json)


def print_plan(settings: BootstrapConfig, scale: Scale, *, as_json: bool) -> None:
    """Plans a training and prints the plan, as a table or as JSON."""
    from sparseformers.processes import process_state
    from sparseformers.train.plan import make_plan

    console = console_for(as_json=as_json)
    with console.status("making some steps"):
        plan = make_plan(settings, scale, device=process_state().device)
    if as_json:
        print_json(to_dict(plan))
    else:
        console.print(plan_table(plan))


def plan_table(plan: TrainingPlan) -> Table:
    """The plan as a table."""
    table = Table(title=f"Plan: bootstrap from {plan.teacher}", show_header=False, title_justify="left")
    for line in plan.inheritance:
        table.add_row("inheritance", line)
    cost, times = plan.multiply_adds, plan.rehearsal
    teacher = f"teacher {cost.teacher_forward / 1e9:.2f} G" if cost.teacher_forward else "teacher cached"
    student = f"student {cost.student_forward / 1e9:.2f} G forward, {cost.student_backward / 1e9:.2f} G backward"
    table.add_row("multiply-adds", f"{cost.total / 1e9:.2f} G for each image seen: {teacher}, {student}")
    table.add_row("images", f"{plan.train_images:,} to learn from, {plan.held_out_images:,} to measure progress on")
    on = f" on {plan.devices:,} devices" if plan.devices > 1 else ""
    table.add_row("steps", f"{plan.steps:,} of {plan.batch_size:,} images{on} ({plan.samples:,} seen, {plan.precision})")
    planned = "" if plan.seconds_per_step == times.step else f"; planned with {plan.seconds_per_step:.4f} s"
    waiting = f"{times.data_wait:.0%} of it waiting for images"
    table.add_row("a step", f"{times.step:.3f} s (measured on one {plan.device} device, {waiting}){planned}")
    table.add_row("time", f"about {duration(plan.seconds)} ({plan.images_per_second:,.1f} images a second)", style="bold")
    if plan.devices > 1:
        table.add_row("device hours", f"about {plan.devices * plan.seconds / 3600:,.0f}")
    table.add_row("memory", f"about {times.memory_gib:.1f} GiB on each device (measured)")
    table.add_row("to read", f"{_size(plan.bytes_per_second)} a second ({_size(plan.bytes_per_image)} for each image seen)")
    if plan.cache_gib:
        table.add_row("cache of views", _size(plan.cache_gib * 2**30))
    table.add_row("checkpoint", f"{_size(plan.checkpoint_bytes)}, of which the model {_size(plan.model_bytes)}")
    for line in plan.assumptions:
        table.add_row("assumed", line)
    return table


def _size(count: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"
