"""What a person sees of an embedding: a bar with rate and time left, or a line now and then where there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0
"""How often a line is written where there is no terminal."""


class EmbeddingProgress:
    """The bar of one embedding.

    Args:
        console: to write to.
        size: bytes of the input; 0 where they are not known.
        total: images, where they are known.
        images: of them embedded or skipped by an earlier process.
        reached: bytes that these took.
    """

    def __init__(self, console: Console, *, size: int, total: int | None, images: int, reached: int) -> None:
        self.console = console
        self.size = size
        self.total = total
        self._images = self._images_before = images
        self._reached_before = reached
        self._skipped = 0
        self._start = self._last_line = time.perf_counter()
        self._bar = Progress(
            TextColumn("embedding"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=120,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=size or None, completed=reached, figures="starting")

    def __enter__(self) -> EmbeddingProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._start

    @property
    def images_per_second(self) -> float:
        """Over all of this process."""
        return (self._images - self._images_before) / max(self.seconds, 1e-9)

    def step(self, images: int, skipped: int, reached: int) -> None:
        """Shows where the embedding is.

        Args:
            images: embedded since the last step.
            skipped: likewise.
            reached: bytes of the input up to here.
        """
        self._images += images + skipped
        self._skipped += skipped
        figures = f"{self._images:,}{f' of {self.total:,}' if self.total else ''} images  {self.images_per_second:.1f} img/s"
        if self._skipped:
            figures += f"  {self._skipped:,} skipped"
        self._bar.update(self._task, completed=reached, figures=figures)
        if not self.console.is_terminal and time.perf_counter() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.perf_counter()
            self.console.print(f"{figures}{self._left(reached)}", highlight=False, markup=False, soft_wrap=True)

    def _left(self, reached: int) -> str:
        """How long it will take yet, where that can be told."""
        done = reached - self._reached_before
        if not self.size or done <= 0:
            return ""
        return f"  about {self.seconds / done * (self.size - reached):,.0f} s left"
