"""``sparseformers status``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.live import Live
from rich.table import Table

from sparseformers.cli.output import duration, print_json
from sparseformers.errors import ConfigError
from sparseformers.progress import PlainConsole
from sparseformers.settings import to_dict

if TYPE_CHECKING:
    from sparseformers.train.callbacks.status import RunStatus

WATCH_SECONDS = 2.0  # time between two readings of the folder
BARS = "▁▂▃▄▅▆▇█"  # heights of a curve in a line of text
STYLES = {"running": "green", "finished": "bold", "stopped": "yellow", "dead": "red", "unknown": "dim"}


@dataclass(frozen=True)
class Status:
    """Tell how a run is doing, from its folder: running, finished, stopped or dead, how far, how well, and how to go on.

    Example: sparseformers status runs/first --watch
    """

    run_path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    """The run folder."""
    watch: bool = False
    """Read again every two seconds until the run ends, or until Ctrl-C."""
    json: bool = False
    """Print the figures as JSON."""

    def __post_init__(self) -> None:
        if self.watch and self.json:
            raise ConfigError("--watch and --json cannot both be had.", "Choose one of them.")

    def run(self) -> None:
        from sparseformers.train.callbacks.status import read_status

        status = read_status(self.run_path)
        if self.json:
            print_json(to_dict(status))
            return
        console = PlainConsole()
        if not self.watch:
            console.print(status_table(status))
            return
        with Live(status_table(status), console=console, auto_refresh=False) as live:
            while status.state == "running":
                time.sleep(WATCH_SECONDS)
                status = read_status(self.run_path)
                live.update(status_table(status), refresh=True)


def status_table(status: RunStatus) -> Table:
    """The summary as a table; what is not known yet is left out."""
    table = Table(title=f"Run {status.path}: {status.state}", show_header=False, title_justify="left")
    table.add_row("state", status.message, style=STYLES[status.state])
    total = "" if status.total_samples is None else f" of {status.total_samples:,}"
    table.add_row("progress", f"{status.progress:.0%}, {status.samples:,}{total} images in {duration(status.seconds)}")
    if status.seconds_left is not None and status.state != "finished":
        table.add_row("time left", f"about {duration(status.seconds_left)}")
    if status.loss is not None:
        change = "" if status.loss_change is None else f" ({status.loss_change:+.1%} of late)"
        table.add_row("loss", f"{status.loss:.4f}{change} {curve(status.losses)}")
    if status.held_out_last is not None:
        measured = f"first {status.held_out_first:.4f}, best {status.held_out_best:.4f}, last {status.held_out_last:.4f}"
        table.add_row("held-out centred cosine", measured)
        table.add_row("held-out cosine", f"mean {status.cosine_mean:.4f}, 5th percentile {status.cosine_p05:.4f}")
    if status.images_per_second is not None:
        table.add_row("images a second", f"{status.images_per_second:.1f}, {status.data_wait:.1%} of the time waiting for data")
        table.add_row("peak memory", f"{status.peak_memory_gib:.1f} GiB")
    table.add_row("steps skipped", f"{status.non_finite_steps} with a loss or gradient that is not a finite number")
    table.add_row("images skipped", f"{status.skipped_images}")
    if status.checkpoint is not None and status.checkpoint_time is not None:
        written = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.checkpoint_time))
        table.add_row("last checkpoint", f"{status.checkpoint.name}, {written}")
    if status.resume is not None:
        table.add_row("go on with it by", status.resume)
    return table


def curve(values: Sequence[float]) -> str:
    """Numbers as bars between the least and the greatest of them."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    return "".join(BARS[round((value - low) / ((high - low) or 1.0) * (len(BARS) - 1))] for value in values)
