"""``sparseformers pack``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from sparseformers.cli.output import console_for, duration, print_json
from sparseformers.data.pack import PackConfig, PackSummary, pack
from sparseformers.settings import to_dict


@dataclass(frozen=True)
class Pack:
    """Pack a folder of images into tar shards, for bootstrap --data and for anything that reads WebDataset's format.

    After a stop, however it came, the same command goes on to the same bytes. Each shard is read again before it gets its name.
    What cannot be decoded is left out and listed.

    Example: sparseformers pack photos shards --shard-size 256MB --resize 256
    """

    settings: Annotated[PackConfig, tyro.conf.arg(name="")]
    overwrite: bool = False
    """Replace shards that are there, and what another command has begun of them."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> None:
        """Runs the command."""
        console = console_for(as_json=self.json)
        try:
            summary = pack(self.settings, overwrite=self.overwrite, console=console)
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on with it", highlight=False)
            raise
        if self.json:
            print_json(to_dict(summary))
        else:
            report(summary, console)


def report(summary: PackSummary, console: Console) -> None:
    """Prints what came of a packing."""
    table = Table(title=f"Shards {summary.out}", show_header=False, title_justify="left")
    table.add_row("shards", f"{summary.shards:,}, {summary.bytes / 1e6:,.1f} MB", style="bold")
    table.add_row("images", f"{summary.images:,}")
    skipped_list = summary.out / "skipped_images.txt"
    table.add_row("images skipped", f"{summary.skipped:,}" + (f", listed in {skipped_list}" if summary.skipped else ""))
    if summary.went_on_from:
        table.add_row("packed before", f"{summary.went_on_from:,} images")
    table.add_row("rate", f"{summary.images_per_second:.1f} images a second, {duration(summary.seconds)}")
    console.print(table)
