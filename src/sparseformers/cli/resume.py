"""``sparseformers resume``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sparseformers.cli.bootstrap import report_summary
from sparseformers.cli.output import console_for


@dataclass(frozen=True)
class Resume:
    """Go on with a run that was stopped or killed, with its own settings, from its newest whole checkpoint.

    Example: sparseformers resume runs/first
    """

    run_path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    """The run folder."""
    overrides: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set", metavar="KEY=VALUE")] = ()
    """Another value for a setting that changes nothing of what is learnt, such as workers, checkpoint_every, keep or log_every.
    May be given several times."""
    teacher: str | None = None
    """Where the teacher is now, if it was moved."""
    data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Where the images to learn from are now, if they were moved; as often as for bootstrap."""
    eval_data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Where the images of --eval-data are now."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> None:
        from sparseformers.train import resume
        from sparseformers.train.recipe import parse_pairs

        console = console_for(as_json=self.json)
        changes = parse_pairs(self.overrides)
        changes |= {name: value for name in ("teacher", "data", "eval_data") if (value := getattr(self, name))}
        report_summary(resume(self.run_path, console=console, **changes), console, as_json=self.json)
