"""``sparseformers ablate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from benchmarks.commands.bench_recipe import print_report, refuse_both
from benchmarks.recipes import TABLE_1, BenchConfig, open_bench, run_rows, table_1, table_1_names, table_1_rows
from sparseformers.cli.output import console_for


@dataclass(frozen=True)
class Ablate:
    """Train the rows of the paper's Table 1 (what is truncated, tuned and frozen), adapted to the teacher's depth.

    With a third of the teacher's blocks as t: default truncates t and tunes t; all-frozen truncates t and tunes none; all-tunable
    truncates t and tunes all others; no-truncation tunes t of all, no-truncation-two-thirds 2t of all. Everything else is the
    recipe paper. An ablation that was stopped goes on where it was: give the same command again.

    Example: sparseformers ablate --teacher timm:vit_small_patch14_dinov2@teacher.safetensors --data caltech101/train
    --eval-data caltech101 --crop 0.875 --out runs/table-1 --rows default,all-frozen --seeds 2
    """

    bench: Annotated[BenchConfig, tyro.conf.arg(name="")]
    """What the rows have in common."""
    rows: str = ",".join(TABLE_1)
    """Rows to train, separated by commas."""
    json: bool = False
    """Print all figures as JSON, with the curve of each training."""
    markdown: bool = False
    """Print the table as Markdown."""

    def __post_init__(self) -> None:
        refuse_both(as_json=self.json, as_markdown=self.markdown)

    def run(self) -> None:
        """Runs the command."""
        names = table_1_names(self.rows)
        console = console_for(as_json=self.json or self.markdown)
        bench = open_bench(self.bench, console)
        report = run_rows(bench, table_1_rows(names, bench.teacher.depth), baselines=False)
        print_report(report, table_1(report), console, as_json=self.json, as_markdown=self.markdown)
