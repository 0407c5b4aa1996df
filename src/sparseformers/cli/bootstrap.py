"""``sparseformers bootstrap``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from sparseformers.cli.output import console_for, print_json, summary_table
from sparseformers.settings import to_dict
from sparseformers.train.recipe import expand_recipe as expand_recipe
from sparseformers.train.recipe import with_recipe
from sparseformers.train.settings import BootstrapConfig

if TYPE_CHECKING:
    from sparseformers.train import RunSummary


@dataclass(frozen=True)
class Bootstrap:
    """Make a SparseFormer of a teacher and align it on plain images.

    Example: sparseformers bootstrap --teacher timm:vit_base_patch16_224.augreg_in21k_ft_in1k --data photos --out runs/first
    --minutes 60
    """

    settings: Annotated[BootstrapConfig, tyro.conf.arg(name="")]
    out: Path
    """The run folder to make."""
    recipe: str | None = None
    """Settings to start from: grid, paper, fitted or a TOML file. Flags that are given here count more than what it sets."""
    overwrite: bool = False
    """Replace a run that is there."""
    dry_run: bool = False
    """Only print the plan, as the command plan does."""
    json: bool = False
    """Print the summary (or the plan) as JSON."""

    def run(self) -> None:
        settings = with_recipe(self.settings, self.recipe)
        if self.dry_run:
            from sparseformers.cli.plan import print_plan
            from sparseformers.train.plan import Scale

            print_plan(settings, Scale(), as_json=self.json)
            return
        from sparseformers.train import bootstrap

        console = console_for(as_json=self.json)
        report_summary(bootstrap(settings, self.out, overwrite=self.overwrite, console=console), console, as_json=self.json)


def report_summary(summary: RunSummary, console: Console, *, as_json: bool) -> None:
    """Prints what came of a run, on the main process."""
    from sparseformers.processes import process_state

    if process_state().is_main_process and as_json:
        print_json(to_dict(summary))
    elif process_state().is_main_process:
        console.print(summary_table(summary))
