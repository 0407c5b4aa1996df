"""``sparseformers embed``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sparseformers.cli.output import console_for, going_on, report_work
from sparseformers.embedding.config import EmbedConfig


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
    FILE.json (how it was made), FILE.tokens.npy, FILE.rois.npy, FILE.dense.npy. A name without an ending: a folder of Parquet
    files, which suits very many images. What was skipped is listed in OUT.skipped.txt, in a folder in _skipped.txt."""
    overwrite: bool = False
    """Replace an output that is there, and what another command has begun of it."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> None:
        from sparseformers.embedding import embed

        console = console_for(as_json=self.json)
        with going_on(console):
            summary = embed(self.settings, self.out, overwrite=self.overwrite, console=console)
        facts = {"rows": f"{summary.rows:,}", "precision": summary.precision}
        report_work(summary, f"Embeddings {summary.out}", facts, summary.skipped_list, as_json=self.json)
