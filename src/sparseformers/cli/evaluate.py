"""``sparseformers evaluate``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from sparseformers.baselines import LowResolutionTeacher
from sparseformers.bootstrap.precision import autocast_dtype, resolve_precision
from sparseformers.cli.output import console_for, print_json, print_whole
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
from sparseformers.errors import ConfigError
from sparseformers.evaluate import (
    Embedded,
    Evaluation,
    ShiftReport,
    align_labels,
    embed,
    evaluate_labelled,
    evaluate_unlabelled,
    evaluation_table,
    measure_shifts,
    shift_conditions,
    shifts_table,
    views_of,
    worst_table,
)
from sparseformers.model import SparseFormer

Item = TypeVar("Item")


@dataclass(frozen=True)
class Evaluate:
    """Measure how near a student is to its teacher on a folder of images.

    With class folders in DIR (train/CLASS and test/CLASS, or CLASS), nearest-neighbour and classifier accuracy are measured too.

    With --shifts it is measured where the student loses what it learnt: blurred, noisy, compressed, darker, flatter, cropped and
    small photographs, other image sizes and shapes; and how far its RoIs move there.

    Example: sparseformers evaluate runs/first --data photos/validation

    Example: sparseformers evaluate runs/first --data photos/validation --shifts --limit 200
    """

    run_path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    """A run folder or a model file."""
    data: Path
    """The folder of images."""
    views: int = 0
    """Fixed random crops of each image to measure on (no classes then); 0 takes the central view."""
    shifts: bool = False
    """Measure under changed conditions, beside the teacher itself and the teacher at a lower resolution with as many tokens."""
    limit: int = 0
    """Measure on this many images only, drawn evenly from all; 0 takes all."""
    tokens: int | None = None
    """Latent tokens, if not those that the student was configured with; an elastic student serves several numbers."""
    teacher: str | None = None
    """Where to load the teacher from, if not from where it was."""
    batch_size: int = 32
    """Images at a time."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the matrix products."""
    json: bool = False
    """Print the figures as JSON."""

    def __post_init__(self) -> None:
        if self.shifts and self.views:
            raise ConfigError(
                "--shifts changes the central view of an image and cannot go with --views.", "Leave one of them out."
            )
        if self.tokens is not None and self.tokens < 1:
            raise ConfigError(f"--tokens must be at least 1, not {self.tokens}.", "Use 16, for example.")
        if self.tokens is not None and self.shifts:
            raise ConfigError(
                "--shifts measures at the student's own number of tokens, not at --tokens.", "Leave out one of them."
            )
        if self.limit < 0 or self.limit == 1:
            raise ConfigError(f"Nothing can be measured on --limit {self.limit} images.", "Give 2 or more, or 0 for all.")

    def run(self) -> None:
        """Runs the command."""
        console = console_for(as_json=self.json)
        splits = None if self.views else labelled_splits(self.data)
        find_images([self.data])
        pair = load_pair(self.run_path, teacher=self.teacher, tokens=self.tokens)
        skipped = SkippedImages()
        title = f"{self.run_path} on {self.data}"
        report: ShiftReport | Evaluation
        if self.shifts:
            report = self._shifts(splits, pair, console, skipped)
            tables = [shifts_table(report, title), worst_table(report.worst)]
        else:
            report = (
                self._unlabelled(pair, console, skipped) if splits is None else self._labelled(splits, pair, console, skipped)
            )
            tables = [evaluation_table(report, title)]
        if self.json:
            print_json(report.to_dict() | {"skipped_images": skipped.lines()})
            return
        for table in tables:
            print_whole(table, console)
        for line in skipped.lines():
            console.print(f"skipped: {line}", highlight=False, markup=False, soft_wrap=True)

    def _shifts(
        self, splits: dict[str, LabelledImages] | None, pair: Pair, console: Console, skipped: SkippedImages
    ) -> ShiftReport:
        labels = None
        if splits is None:
            paths = thinned(find_images([self.data]), self.limit)
        else:
            test = self._judged(splits)
            paths = list(test.paths)
            outputs = align_labels(test.class_names, pair.teacher.identity.class_names)
            if outputs is not None and len(outputs) == pair.teacher.anatomy.classes:
                labels = [outputs[label] for label in test.labels]
        conditions = shift_conditions(pair.teacher.preprocessing, paths)
        assert isinstance(pair.student, SparseFormer)  # --tokens does not go with --shifts
        side = max(1, round(math.sqrt(pair.student.config.focusing.tokens)))
        views = len(views_of(conditions))
        with embedding_progress(console, f"{len(paths)} images in {views} views", len(paths) * views) as advance:
            return measure_shifts(
                pair.student,
                pair.teacher,
                paths,
                conditions,
                labels=labels,
                low_resolution=LowResolutionTeacher(pair.teacher, side).to(pair.device),
                batch_size=self.batch_size,
                workers=default_workers(),
                device=pair.device,
                autocast=autocast_dtype(resolve_precision(self.precision, pair.device)),
                progress=advance,
                on_unreadable=lambda index, reason: skipped.add(paths[index], reason),
            )

    def _judged(self, splits: dict[str, LabelledImages]) -> LabelledImages:
        """The labelled images to measure on."""
        test = splits.get("test") or splits["all"]
        return replace(test, paths=tuple(thinned(test.paths, self.limit)), labels=tuple(thinned(test.labels, self.limit)))

    def _labelled(self, splits: dict[str, LabelledImages], pair: Pair, console: Console, skipped: SkippedImages) -> Evaluation:
        test = self._judged(splits)
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
        embedded = self._embed(thinned(find_images([self.data]), self.limit), pair, console, skipped, "images")
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


def thinned(items: Sequence[Item], limit: int) -> list[Item]:
    """``limit`` of the items, evenly drawn in their order; all of them if they are no more than that, or for 0."""
    if not limit or limit >= len(items):
        return list(items)
    return [items[place * len(items) // limit] for place in range(limit)]


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
