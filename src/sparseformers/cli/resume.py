"""``sparseformers resume``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sparseformers.bootstrap import resume
from sparseformers.cli.bootstrap import report_summary
from sparseformers.cli.output import console_for


@dataclass(frozen=True)
class Resume:
    """Go on with a run that was stopped, with its own settings.

    Example: sparseformers resume runs/first
    """

    run_path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    """The run folder."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> None:
        """Runs the command."""
        console = console_for(as_json=self.json)
        report_summary(resume(self.run_path, console=console), console, as_json=self.json)
