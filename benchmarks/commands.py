"""``python -m benchmarks COMMAND``: recipes side by side, the paper's Table 1, speed, where to look, maps of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Union

import tyro
from rich.console import Console
from rich.markup import escape

from benchmarks.dense import DenseConfig, compare_maps_of_features, dense_table
from benchmarks.looking import LookingConfig, compare_maps, looking_table
from benchmarks.recipes import (
    TABLE_1,
    ComparisonConfig,
    Findings,
    open_comparison,
    recipe_rows,
    recipes_table,
    run_rows,
    table_1,
    table_1_names,
    table_1_rows,
)
from benchmarks.speed import (
    SpeedConfig,
    judge,
    measure_speed,
    operator_tables,
    settings_for_targets,
    speed_tables,
    summary,
    targets_of,
    targets_table,
)
from benchmarks.text_table import TextTable, print_tables
from sparseformers.cli.output import console_for, print_json
from sparseformers.errors import ConfigError, SparseFormersError
from sparseformers.settings import to_dict

BAD_USAGE = 2
"""Exit code for what the user can mend."""


@dataclass(frozen=True, kw_only=True)
class _Printing:
    """How a command prints what it found."""

    json: bool = False
    """Print all figures as JSON: the curve of each training, or the time of every turn."""
    markdown: bool = False
    """Print the tables as Markdown."""

    def __post_init__(self) -> None:
        if self.json and self.markdown:
            raise ConfigError("--json and --markdown cannot both be printed.", "Choose one of them.")

    @property
    def console(self) -> Console:
        """For progress and tables: standard error where standard output carries JSON or Markdown."""
        return console_for(as_json=self.json or self.markdown)

    def report(self, report: Findings, table: TextTable) -> None:
        """Prints what a comparison of recipes found."""
        if self.json:
            print_json(report.to_dict())
        else:
            print_tables([table], self.console, as_markdown=self.markdown)


@dataclass(frozen=True, kw_only=True)
class Recipes(_Printing):
    """Compare recipes under the same conditions over several seeds, beside the teacher and what needs no training.

    Each NAME is trained with each seed in OUT/NAME/seed-K and judged on the test part of the evaluation folder. A comparison
    that was stopped goes on where it was: give the same command again.

    Example: python -m benchmarks recipes paper --teacher timm:vit_small_patch14_dinov2@teacher.safetensors
    --data caltech101/train --eval-data caltech101 --crop 0.875 --out runs/recipes --budget 60k-samples
    """

    bench: Annotated[ComparisonConfig, tyro.conf.arg(name="")]
    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME...")]
    """Recipes that come with the package, such as paper, or TOML files."""
    baselines: bool = True
    """Measure the untrained low-resolution teacher, and token merging on the teacher at equal multiply-adds, too."""

    def run(self) -> None:
        """Runs the command."""
        rows = recipe_rows(self.recipes)
        report = run_rows(open_comparison(self.bench, self.console), rows, baselines=self.baselines)
        self.report(report, recipes_table(report))


@dataclass(frozen=True, kw_only=True)
class Table1(_Printing):
    """Train the rows of the paper's Table 1 (what is truncated, tuned and frozen), adapted to the teacher's depth.

    With a third of the teacher's blocks as t: default truncates t and tunes t; all-frozen truncates t and tunes none; all-tunable
    truncates t and tunes all others; no-truncation tunes t of all, no-truncation-two-thirds 2t of all. Everything else is the
    recipe paper. What was stopped goes on where it was: give the same command again.

    Example: python -m benchmarks table1 --teacher timm:vit_small_patch14_dinov2@teacher.safetensors --data caltech101/train
    --eval-data caltech101 --crop 0.875 --out runs/table-1 --rows default,all-frozen --seeds 2
    """

    bench: Annotated[ComparisonConfig, tyro.conf.arg(name="")]
    rows: str = ",".join(TABLE_1)
    """Rows to train, separated by commas."""

    def run(self) -> None:
        """Runs the command."""
        names = table_1_names(self.rows)
        bench = open_comparison(self.bench, self.console)
        report = run_rows(bench, table_1_rows(names, bench.teacher.depth), baselines=False)
        self.report(report, table_1(report))


@dataclass(frozen=True, kw_only=True)
class Speed(_Printing):
    """Measure how fast a student is on this machine, in turns with its teacher and what else could do its work at its cost.

    For each model, precision, backend and batch size: time, images a second, the floor that the machine's own rates set, the
    share of its rate of matrix products, peak memory, and how near the embeddings are to those in float32 (benchmarks/README.md).

    Example: python -m benchmarks speed sf_base_augreg --batch 1,16 --backend eager,compile

    Example: python -m benchmarks speed runs/first --models student,teacher --precision fp32,int8 --images photos --markdown

    Example: python -m benchmarks speed sf_base_augreg --targets
    """

    settings: Annotated[SpeedConfig, tyro.conf.arg(name="")] = SpeedConfig()  # noqa: RUF009  # it is frozen
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|NAME")] = "sf_base_augreg"
    """The student: a run folder, a model file, or a named size with random weights, which cost the same time."""
    targets: bool = False
    """Measure what is needed to tell whether the student is as fast as it is meant to be, and print that."""

    def __post_init__(self) -> None:
        super().__post_init__()
        default = SpeedConfig
        if self.targets and any(
            getattr(self.settings, name) != getattr(default, name) for name in ("models", "batch", "precision")
        ):
            raise ConfigError(
                "--targets decides itself on --models, --batch and --precision.", "Leave them out, or leave out --targets."
            )

    def run(self) -> None:
        """Runs the command."""
        settings = settings_for_targets(self.settings) if self.targets else self.settings
        report = measure_speed(self.model, settings, console=self.console)
        verdicts = judge(report, targets_of(settings.device)) if self.targets else []
        if self.json:
            judged = {"targets": [to_dict(verdict) for verdict in verdicts]} if self.targets else {}
            print_json({"model": self.model, **judged, **report.to_dict()})
            return
        tables = [targets_table(report, verdicts)] if self.targets else speed_tables(report)
        print_tables([*tables, *operator_tables(report)], self.console, as_markdown=self.markdown)
        if not self.markdown:
            self.console.print(summary(report), highlight=False, markup=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Looking(_Printing):
    """Compare maps that the mixed-resolution front may split its cells by: learnt, mean, random, of another image, the teacher's.

    Example: python -m benchmarks looking --data photos/train --eval-data photos/test --out runs/looking
    """

    settings: Annotated[LookingConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Runs the command."""
        figures = compare_maps(self.settings, self.console)
        if self.json:
            print_json({"rows": [to_dict(each) for each in figures]})
        else:
            print_tables([looking_table(self.settings, figures)], self.console, as_markdown=self.markdown)


@dataclass(frozen=True, kw_only=True)
class Dense(_Printing):
    """Compare students that learn the teacher's feature map by a read-out, by their tokens alone, and not at all.

    Example: python -m benchmarks dense --data photos/train --eval-data photos/test --out runs/dense
    """

    settings: Annotated[DenseConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Runs the command."""
        figures = compare_maps_of_features(self.settings, self.console)
        if self.json:
            print_json({"rows": [to_dict(each) for each in figures]})
        else:
            print_tables([dense_table(self.settings, figures)], self.console, as_markdown=self.markdown)


Command = Union[  # noqa: UP007  # tyro reads the names off the annotations
    Annotated[Recipes, tyro.conf.subcommand("recipes")],
    Annotated[Table1, tyro.conf.subcommand("table1")],
    Annotated[Speed, tyro.conf.subcommand("speed")],
    Annotated[Looking, tyro.conf.subcommand("looking")],
    Annotated[Dense, tyro.conf.subcommand("dense")],
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line and runs the command.

    Args:
        arguments: without the program's name; those of the process by default.

    Returns:
        The exit code: 0, or 2 for bad usage or input.
    """
    try:
        command: Command = tyro.cli(Command, prog="python -m benchmarks", description=__doc__, args=arguments)
        command.run()
    except SparseFormersError as error:
        text = f"[bold red]error:[/bold red] {escape(error.problem)}\n       {escape(error.remedy)}"
        Console(stderr=True, soft_wrap=True).print(text, highlight=False)
        return BAD_USAGE
    return 0
