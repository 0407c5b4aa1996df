"""``sparseformers bench-recipe``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from benchmarks.recipes import BenchConfig, BenchReport, TextTable, open_bench, recipe_rows, recipes_table, run_rows
from sparseformers.cli.output import console_for, print_json, print_whole
from sparseformers.errors import ConfigError


@dataclass(frozen=True)
class BenchRecipe:
    """Compare recipes under the same conditions over several seeds, beside the teacher and what needs no training.

    Each NAME is trained with each seed in OUT/NAME/seed-K and judged on the test part of the evaluation folder. A bench that was
    stopped goes on where it was: give the same command again.

    Example: sparseformers bench-recipe paper --teacher timm:vit_small_patch14_dinov2@teacher.safetensors --data caltech101/train
    --eval-data caltech101 --crop 0.875 --out runs/bench --budget 60k-samples
    """

    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME...")]
    """Recipes that come with the package, such as paper, or TOML files."""
    bench: Annotated[BenchConfig, tyro.conf.arg(name="")]
    """What they have in common."""
    baselines: bool = True
    """Measure the untrained low-resolution teacher, and token merging on the teacher at equal multiply-adds, too."""
    json: bool = False
    """Print all figures as JSON, with the curve of each training."""
    markdown: bool = False
    """Print the table as Markdown."""

    def __post_init__(self) -> None:
        refuse_both(as_json=self.json, as_markdown=self.markdown)

    def run(self) -> None:
        """Runs the command."""
        rows = recipe_rows(self.recipes)
        console = console_for(as_json=self.json or self.markdown)
        report = run_rows(open_bench(self.bench, console), rows, baselines=self.baselines)
        print_report(report, recipes_table(report), console, as_json=self.json, as_markdown=self.markdown)


def refuse_both(*, as_json: bool, as_markdown: bool) -> None:
    """Raises ConfigError if standard output is to be two things at once."""
    if as_json and as_markdown:
        raise ConfigError("--json and --markdown cannot both be printed.", "Choose one of them.")


def print_report(report: BenchReport, table: TextTable, console: Console, *, as_json: bool, as_markdown: bool) -> None:
    """Prints what a bench found."""
    if as_json:
        print_json(report.to_dict())
    elif as_markdown:
        print(table.markdown())
    else:
        print_whole(table.rich(), console)
        for note in table.notes:
            console.print(note, highlight=False, markup=False, soft_wrap=True)
