"""``sparseformers bootstrap``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from sparseformers.cli.output import console_for, print_json
from sparseformers.cli.plan import print_plan
from sparseformers.cli.tables import summary_table
from sparseformers.processes import process_state
from sparseformers.settings import to_dict
from sparseformers.train import BootstrapConfig, RunSummary, Scale, bootstrap
from sparseformers.train.recipe import load_recipe


@dataclass(frozen=True)
class Bootstrap:
    """Make a SparseFormer of a teacher and align it on plain images.

    Example: sparseformers bootstrap --teacher timm:vit_base_patch16_224.augreg_in21k_ft_in1k --data photos --out runs/first
    --minutes 60
    """

    settings: Annotated[BootstrapConfig, tyro.conf.arg(name="")]
    """What to make."""
    out: Path
    """The run folder to make."""
    recipe: str | None = None
    """A recipe to start from, such as paper, or a TOML file; flags that are given here count more than what it sets."""
    overwrite: bool = False
    """Replace a run that is there."""
    dry_run: bool = False
    """Only print the plan, as the command plan does: what is new, tuned and frozen, cost, steps, estimated time and memory."""
    json: bool = False
    """Print the summary (or the plan) as JSON."""

    def run(self) -> None:
        """Runs the command."""
        console = console_for(as_json=self.json)
        if self.dry_run:
            print_plan(self.settings, Scale(), as_json=self.json)
            return
        report_summary(bootstrap(self.settings, self.out, overwrite=self.overwrite, console=console), console, as_json=self.json)


def expand_recipe(arguments: Sequence[str]) -> list[str]:
    """Puts the flags that a recipe stands for before those that the user gave, of which the last one counts.

    Args:
        arguments: of the program; only those of ``bootstrap`` and ``plan`` change.

    Raises:
        ConfigError: if there is no such recipe, or it is none.
    """
    expanded = list(arguments)
    if expanded[:1] not in (["bootstrap"], ["plan"]):
        return expanded
    for flag, following in zip(expanded, [*expanded[1:], ""], strict=True):
        name, _, value = flag.partition("=")
        if name == "--recipe" and (value or following):
            return [expanded[0], *load_recipe(value or following).flags(), *expanded[1:]]
    return expanded


def report_summary(summary: RunSummary, console: Console, *, as_json: bool) -> None:
    """Prints what came of a run, on the main process."""
    if not process_state().is_main_process:
        return
    if as_json:
        print_json(to_dict(summary))
    else:
        console.print(summary_table(summary))
