"""``sparseformers benchmark``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from benchmarks.commands.bench_recipe import refuse_both
from benchmarks.recipes import TextTable
from benchmarks.speed import (
    BenchmarkConfig,
    benchmark,
    benchmark_tables,
    judge,
    operator_tables,
    settings_for_targets,
    summary,
    targets_of,
    targets_table,
)
from sparseformers.cli.output import console_for, print_json, print_whole
from sparseformers.errors import ConfigError
from sparseformers.settings import to_dict


@dataclass(frozen=True)
class Benchmark:
    """Measure how fast a student is on this machine, in turns with its teacher and what else could do its work at its cost.

    For each model, precision, backend and batch size: time, images a second, the floor that the machine's own rates set, the
    share of its rate of matrix products, peak memory, and how near the embeddings are to those in float32 (docs/performance.md).

    Example: sparseformers benchmark sf_base_augreg --batch 1,16 --backend eager,compile

    Example: sparseformers benchmark runs/first --models student,teacher --precision fp32,int8 --images photos --markdown

    Example: sparseformers benchmark sf_base_augreg --targets

    Example: sparseformers benchmark sf_base_augreg --models student,teacher --backend eager,packed --trace traces
    """

    settings: Annotated[BenchmarkConfig, tyro.conf.arg(name="")]
    """What to measure."""
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|NAME")] = "sf_base_augreg"
    """The student: a run folder, a model file, or a named size with random weights, which cost the same time."""
    targets: bool = False
    """Measure what is needed to tell whether the student is as fast as it is meant to be, and print that."""
    json: bool = False
    """Print all figures as JSON, those of every turn included."""
    markdown: bool = False
    """Print the tables as Markdown."""

    def __post_init__(self) -> None:
        refuse_both(as_json=self.json, as_markdown=self.markdown)
        if self.targets and (self.settings.models, self.settings.batch, self.settings.precision) != _DEFAULTS:
            raise ConfigError(
                "--targets decides itself on --models, --batch and --precision.", "Leave them out, or leave out --targets."
            )

    def run(self) -> None:
        """Runs the command."""
        console = console_for(as_json=self.json or self.markdown)
        settings = settings_for_targets(self.settings) if self.targets else self.settings
        report = benchmark(self.model, settings, console=console)
        verdicts = judge(report, targets_of(settings.device)) if self.targets else []
        if self.json:
            judged = {"targets": [to_dict(verdict) for verdict in verdicts]} if self.targets else {}
            print_json({"model": self.model, **judged, **report.to_dict()})
            return
        tables = [targets_table(report, verdicts)] if self.targets else benchmark_tables(report)
        tables += operator_tables(report)
        _print(tables, console, as_markdown=self.markdown)
        if not self.markdown:
            console.print(summary(report), highlight=False, markup=False, soft_wrap=True)


_DEFAULTS = (BenchmarkConfig.models, BenchmarkConfig.batch, BenchmarkConfig.precision)


def _print(tables: list[TextTable], console: Console, *, as_markdown: bool) -> None:
    if as_markdown:
        print("\n\n".join(table.markdown() for table in tables))
        return
    for table in tables:
        print_whole(table.rich(), console)
        for note in table.notes:
            console.print(note, highlight=False, markup=False, soft_wrap=True)
