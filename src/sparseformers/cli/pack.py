"""``sparseformers pack``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from sparseformers.cli.output import console_for, going_on, report_work
from sparseformers.data.pack import PackConfig, pack


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
        console = console_for(as_json=self.json)
        with going_on(console):
            summary = pack(self.settings, overwrite=self.overwrite, console=console)
        facts = {"shards": f"{summary.shards:,}, {summary.bytes / 1e6:,.1f} MB", "images": f"{summary.images:,}"}
        report_work(summary, f"Shards {summary.out}", facts, summary.out / "skipped_images.txt", as_json=self.json)
