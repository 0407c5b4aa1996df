"""Progress of long work on images: a bar with rate and time left, or a line now and then without a terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sparseformers.files import printable

SECONDS_BETWEEN_LINES = 30.0  # between two lines where there is no terminal


class PlainConsole(Console):
    """Prints names as they are: what is in brackets is no markup."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Prints lines as they are, however long, whatever is in a name."""
    plain = "".join(letter if letter in "\n\t" else printable(letter) for letter in text)
    console.print(plain, style=style, highlight=False, markup=False, soft_wrap=True)


def figures_bar(console: Console) -> Progress:
    """A bar whose tasks have a text ``figures`` beside it, and tell time elapsed and left; silent without a terminal."""
    done = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(*done, *times, console=console, speed_estimate_period=120, disable=not console.is_terminal)


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class ImageProgress:
    """The bar of a work on ``total`` images, of a ``size`` in any unit (0: unknown), ``reached`` by an earlier process."""

    def __init__(self, console: Console, name: str, *, size: int, total: int | None, images: int, reached: int) -> None:
        self.console, self.size, self.total = console, size, total
        self._images = self._images_before = images
        self._reached_before, self._skipped = reached, 0
        self._start = self._last_line = time.perf_counter()
        self._bar = figures_bar(console)
        self._task = self._bar.add_task(name, total=size or None, completed=reached, figures="starting")

    def __enter__(self) -> ImageProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    @property
    def images_per_second(self) -> float:
        return (self._images - self._images_before) / max(self.seconds, 1e-9)

    def step(self, images: int, skipped: int, reached: int) -> None:
        """Adds images done and skipped since the last step, and shows that ``reached`` of the size is done."""
        self._images += images + skipped
        self._skipped += skipped
        figures = f"{self._images:,}{f' of {self.total:,}' if self.total else ''} images  {self.images_per_second:.1f} img/s"
        if self._skipped:
            figures += f"  {self._skipped:,} skipped"
        self._bar.update(self._task, completed=reached, figures=figures)
        if not self.console.is_terminal and time.perf_counter() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.perf_counter()
            done = reached - self._reached_before
            left = f"  about {self.seconds / done * (self.size - reached):,.0f} s left" if self.size and done > 0 else ""
            say(self.console, f"{figures}{left}")
