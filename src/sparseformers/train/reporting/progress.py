"""What a person sees of a training: a bar with rate and time left, or one line a measurement where there is no terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sparseformers.evaluation import Alignment


class TrainingProgress:
    """The bar of one training.

    Args:
        console: to write to; only the main process has one that is not quiet.
        progress: how much of the budget is spent at the start, in [0, 1].
    """

    def __init__(self, console: Console, progress: float) -> None:
        self.console = console
        self.held_out = "-"
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("bootstrap", total=1.0, figures="starting")
        self._bar.update(self._task, completed=progress)

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def move(self, progress: float) -> None:
        """Shows how much of the budget is spent, in [0, 1]."""
        self._bar.update(self._task, completed=progress)

    def step(self, progress: float, *, loss: float, images_per_second: float, data_wait: float) -> None:
        """Shows where the training is.

        Args:
            progress: of the budget, in [0, 1].
            loss: of late.
            images_per_second: of late, over all processes.
            data_wait: share of the time spent waiting for images, in [0, 1].
        """
        figures = f"loss {loss:.3f}  held-out {self.held_out}  {images_per_second:.0f} img/s  data wait {data_wait:.0%}"
        self._bar.update(self._task, completed=progress, figures=figures)

    def measured(self, progress: float, samples: int, alignment: Alignment) -> None:
        """Reports a measurement on the held-out images."""
        self.held_out = f"{alignment.centred_cosine:.3f}"
        self.console.print(
            f"[dim]{progress:4.0%} {samples:>9,} images[/dim]  held-out centred cosine [bold]{self.held_out}[/bold]"
            f" (cosine {alignment.cosine_mean:.3f}, constant {alignment.constant_baseline:.3f};"
            f" neighbours {alignment.neighbour_agreement:.0%})",
            highlight=False,
            soft_wrap=True,
        )
