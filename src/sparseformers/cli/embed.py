"""``sparseformers embed``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

from sparseformers.cli.output import console_for, print_json
from sparseformers.embedding.config import EmbedConfig
from sparseformers.settings import to_dict

if TYPE_CHECKING:
    from sparseformers.embedding import EmbedSummary


@dataclass(frozen=True)
class Embed:
    """Embed images into an index: a row of file name and embedding for each, in memory that does not grow with their number.

    After a stop, however it came, the same command goes on where it was. What cannot be read is left out and listed.

    Example: sparseformers embed runs/first photos --out photos.parquet

    Example: sparseformers embed timm:vit_base_patch16_224.augreg_in21k_ft_in1k 'shards/{00000..00127}.tar' --out index
    """

    settings: Annotated[EmbedConfig, tyro.conf.arg(name="")]
    out: Path
    """FILE.parquet: columns file_name, embedding, tokens, rois. FILE.npy: rows x D, and beside it FILE.names.txt (a name a line),
    FILE.json (how it was made), FILE.tokens.npy and FILE.rois.npy. A name without an ending: a folder of Parquet files, which
    suits very many images. What was skipped is listed in OUT.skipped.txt, in a folder in _skipped.txt."""
    overwrite: bool = False
    """Replace an output that is there, and what another command has begun of it."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> None:
        """Runs the command."""
        from sparseformers.embedding import embed

        console = console_for(as_json=self.json)
        try:
            summary = embed(self.settings, self.out, overwrite=self.overwrite, console=console)
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on with it", highlight=False)
            raise
        if self.json:
            print_json(to_dict(summary))
        else:
            report(summary, console)


def report(summary: EmbedSummary, console: Console) -> None:
    """Prints what came of an embedding."""
    from sparseformers.cli.output import duration

    table = Table(title=f"Embeddings {summary.out}", show_header=False, title_justify="left")
    table.add_row("rows", f"{summary.rows:,}", style="bold")
    table.add_row("images skipped", f"{summary.skipped:,}" + (f", listed in {summary.skipped_list}" if summary.skipped else ""))
    if summary.went_on_from:
        table.add_row("embedded before", f"{summary.went_on_from:,} images")
    table.add_row("rate", f"{summary.images_per_second:.1f} images a second, {duration(summary.seconds)}, {summary.precision}")
    console.print(table)
