"""``sparseformers report``."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sparseformers.cli.output import console_for, print_json, say
from sparseformers.errors import ConfigError
from sparseformers.settings import to_dict


@dataclass(frozen=True)
class Report:
    """Put a run on a page: curves, cost, where RoIs went, its worst images, skipped files, the full configuration.

    Every run writes the page at its end; this makes it again, also of a run that is at work, stopped or dead. It needs the run
    folder alone, and the page is one file that fetches nothing.

    Example: sparseformers report runs/first --open
    """

    run_path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    """The run folder."""
    out: Path | None = None
    """The file to write, in the place of report.html in the run folder; one that is there is replaced."""
    open: bool = False
    """Show it in the browser."""
    json: bool = False
    """Print where it is, its size and what it lacks as JSON."""

    def run(self) -> None:
        if self.out is not None and self.out.suffix.lower() not in (".html", ".htm"):
            raise ConfigError(f"The report is a page, which '{self.out}' is not named as.", "Give --out a name with .html.")
        from sparseformers.train import RunFolder, write_report

        report = write_report(RunFolder.existing(self.run_path), self.out)
        console = console_for(as_json=self.json)
        if self.json:
            print_json(to_dict(report))
        else:
            for sentence in report.missing:
                say(console, sentence)
            say(console, f"The report is in {report.path} ({report.bytes / 1e6:.2f} MB).")
        if self.open and not webbrowser.open(report.path.absolute().as_uri()):
            say(console, "No browser could be opened.")
