"""``sparseformers evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from sparseformers.bootstrap.precision import autocast_dtype, resolve_precision
from sparseformers.cli.output import console_for, print_json
from sparseformers.cli.run_pair import Pair, load_pair
from sparseformers.data import (
    LabelledImages,
    SkippedImages,
    default_workers,
    evaluation_batches,
    find_images,
    fixed_views,
    labelled_splits,
)
from sparseformers.evaluate import Embedded, Evaluation, embed, evaluate_labelled, evaluate_unlabelled, evaluation_table


@dataclass(frozen=True)
class Evaluate:
    """Measure how near a student is to its teacher on a folder of images.

    With class folders in DIR (train/CLASS and test/CLASS, or CLASS), nearest-neighbour and classifier accuracy are measured too.

    Example: sparseformers evaluate runs/first --data photos/validation
    """

    run_path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    """A run folder or a model file."""
    data: Path
    """The folder of images."""
    views: int = 0
    """Fixed random crops of each image to measure on (no classes then); 0 takes the central view."""
    teacher: str | None = None
    """Where to load the teacher from, if not from where it was."""
    batch_size: int = 32
    """Images at a time."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the matrix products."""
    json: bool = False
    """Print the figures as JSON."""

    def run(self) -> None:
        """Runs the command."""
        console = console_for(as_json=self.json)
        splits = None if self.views else labelled_splits(self.data)
        find_images([self.data])
        pair = load_pair(self.run_path, teacher=self.teacher)
        skipped = SkippedImages()
        evaluation = (
            self._unlabelled(pair, console, skipped) if splits is None else self._labelled(splits, pair, console, skipped)
        )
        if self.json:
            print_json(evaluation.to_dict() | {"skipped_images": skipped.lines()})
            return
        console.print(evaluation_table(evaluation, f"{self.run_path} on {self.data}"))
        for line in skipped.lines():
            console.print(f"skipped: {line}", highlight=False, markup=False, soft_wrap=True)

    def _labelled(self, splits: dict[str, LabelledImages], pair: Pair, console: Console, skipped: SkippedImages) -> Evaluation:
        test = splits.get("test") or splits["all"]
        index = splits.get("train") or test
        embedded_test = self._embed(list(test.paths), pair, console, skipped, "queries")
        same = index is test
        embedded_index = embedded_test if same else self._embed(list(index.paths), pair, console, skipped, "index")
        return evaluate_labelled(
            embedded_test,
            test.labels,
            embedded_index,
            index.labels,
            len(test.class_names),
            same,
            class_names=test.class_names,
            teacher_class_names=pair.teacher.identity.class_names,
            skipped=len(skipped),
        )

    def _unlabelled(self, pair: Pair, console: Console, skipped: SkippedImages) -> Evaluation:
        embedded = self._embed(find_images([self.data]), pair, console, skipped, "images")
        return evaluate_unlabelled(embedded, skipped=len(skipped))

    def _embed(self, paths: list[Path], pair: Pair, console: Console, skipped: SkippedImages, what: str) -> Embedded:
        device, each = pair.device, max(1, self.views)
        preprocessing = pair.teacher.preprocessing
        if self.views:
            batches = fixed_views(
                paths,
                size=preprocessing.size,
                views_per_image=self.views,
                seed=0,
                batch_size=self.batch_size,
                workers=default_workers(),
            )
        else:
            batches = evaluation_batches(paths, preprocessing, batch_size=self.batch_size, workers=default_workers())
        with embedding_progress(console, what, len(paths) * each) as advance:
            return embed(
                pair.student,
                pair.teacher,
                batches,
                device=device,
                autocast=autocast_dtype(resolve_precision(self.precision, device)),
                progress=advance,
                on_unreadable=lambda index, reason: skipped.add(paths[index // each], reason),
            )


class Rate(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        """The rate of late, or nothing before it is known."""
        return Text("" if task.speed is None else f"{task.speed:.0f} img/s")


@contextmanager
def embedding_progress(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over ``total`` images that is gone at the end; gives a function that advances it."""
    columns = (TextColumn(f"embedding {what}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda images: bar.advance(task, images)
