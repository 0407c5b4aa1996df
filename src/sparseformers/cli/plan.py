"""``sparseformers plan``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from sparseformers.cli.output import console_for, print_json
from sparseformers.cli.plan_table import plan_table
from sparseformers.processes import process_state
from sparseformers.settings import to_dict
from sparseformers.train import PlanConfig, Scale, plan_of


@dataclass(frozen=True)
class Plan:
    """Tell what a bootstrapping costs before it starts: multiply-adds, time, bytes to read, sizes of checkpoints.

    Some steps are timed on this machine, with the images under --data where these are given. Takes the settings of bootstrap.

    Example: sparseformers plan --teacher timm:vit_base_patch16_224.augreg_in21k_ft_in1k --images 1.3e9 --devices 64
    """

    settings: Annotated[PlanConfig, tyro.conf.arg(name="")]
    """What to make."""
    scale: Annotated[Scale, tyro.conf.arg(name="")] = field(default_factory=Scale)
    """How large it is to be."""
    recipe: str | None = None
    """A recipe to start from, such as paper, or a TOML file; flags that are given here count more than what it sets."""
    json: bool = False
    """Print the plan as JSON."""

    def run(self) -> None:
        """Runs the command."""
        console = console_for(as_json=self.json)
        with console.status("measuring some steps"):
            plan = plan_of(self.settings, self.scale, device=process_state().device)
        if self.json:
            print_json(to_dict(plan))
        else:
            console.print(plan_table(plan))
