"""``sparseformers demo``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table

from sparseformers.cli.output import console_for, duration, print_json, say, summary_table
from sparseformers.settings import Above, check_bounds, to_dict

if TYPE_CHECKING:
    from sparseformers.demo import DemoSummary

HONESTLY = (
    "Fifteen photographs teach the student the teacher's view of the textures and shapes that are in them, not of the world: on "
    "new photographs it is far from a replacement. For that, give it thousands of images: sparseformers bootstrap --data DIR."
)


@dataclass(frozen=True)
class Demo:
    """Bootstrap from the bundled teacher on fifteen photographs that installed packages ship, evaluate and draw. No network.

    Example: sparseformers demo --out runs/demo
    """

    out: Path = Path("runs/demo")
    """The run folder to make; the photographs are put beside it."""
    minutes: Annotated[float, Above(0)] = 4.0
    """Length of training; loading, evaluating and drawing add about one."""
    seed: int = 0
    """Seed of everything random."""
    overwrite: bool = False
    """Replace a run that is there."""
    json: bool = False
    """Print the figures as JSON."""

    def __post_init__(self) -> None:
        check_bounds(self)

    def run(self) -> None:
        from sparseformers.demo import run_demo

        console = console_for(as_json=self.json)
        summary = run_demo(self.out, minutes=self.minutes, seed=self.seed, overwrite=self.overwrite, console=console)
        if self.json:
            print_json(to_dict(summary))
            return
        for part in (summary_table(summary.run), demo_table(summary), HONESTLY):
            console.print(part)
        say(console, f"How it went: {summary.run.path / 'report.html'}")
        say(console, f"Use it: sparseformers.load('{self.out}')")


def demo_table(summary: DemoSummary) -> Table:
    """The demonstration's figures: held-out views before and after, and photographs that were held out whole."""
    title = f"Held-out views, {summary.run.samples:,} images and {duration(summary.run.seconds)} of training"
    table = Table("measure", title=title, title_justify="left")
    for column in ("same photographs, start", "same, end", "others, start", "others, end"):
        table.add_column(column, justify="right")
    measured = (summary.start, summary.regions, summary.whole_start, summary.whole)
    table.add_row("centred cosine", *(f"{each.centred_cosine:.3f}" for each in measured))
    table.add_row("cosine", *(f"{each.cosine_mean:.3f}" for each in measured))
    table.add_row("cosine of a constant output", *(f"{each.constant_baseline:.3f}" for each in measured))
    common = ((each.neighbour_agreement, each.neighbour_chance) for each in measured)
    table.add_row("nearest neighbours in common", *(f"{share:.1%} ({share / chance:.1f}x chance)" for share, chance in common))
    return table
