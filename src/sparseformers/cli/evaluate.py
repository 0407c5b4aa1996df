"""``sparseformers evaluate``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from sparseformers.cli.evaluate_focus import OfFocus
from sparseformers.cli.evaluate_zero_shot import InWords
from sparseformers.cli.output import console_for, print_json, print_whole
from sparseformers.cli.progress import embedding_progress, thinned
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
from sparseformers.evaluation import (
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
from sparseformers.evaluation.low_resolution import LowResolutionTeacher
from sparseformers.model import SparseFormer
from sparseformers.modes import autocast_dtype, resolve_precision


@dataclass(frozen=True)
class Evaluate:
    """Measure how near a student is to its teacher on a folder of images.

    With class folders in DIR (train/CLASS and test/CLASS, or CLASS), nearest-neighbour and classifier accuracy are measured too.

    With --shifts it is measured where the student loses what it learnt: blurred, noisy, compressed, darker, flatter, cropped and
    small photographs, other image sizes and shapes; and how far its RoIs move there.

    With --zero-shot, the text tower of an OpenCLIP teacher names the classes of the class folders, and student and teacher are
    measured by it; with --captions, images are looked for by captions, and captions by images.

    With --focus it is measured where the student looks: how far its RoIs move, how large they are, how much of the image is
    seen and how often; and with masks or boxes, whether its sampling points fall on objects more than on the rest.

    Example: sparseformers evaluate runs/first --data photos/validation

    Example: sparseformers evaluate runs/first --data photos/validation --shifts --limit 200

    Example: sparseformers evaluate runs/first --data photos/validation --focus --masks photos/masks

    Example: sparseformers evaluate runs/clip --data photos --zero-shot --templates simple

    Example: sparseformers evaluate runs/clip --data photos --captions photos/captions.jsonl
    """

    run_path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    """A run folder or a model file."""
    data: Path
    """The folder of images."""
    views: int = 0
    """Fixed random crops of each image to measure on (no classes then); 0 takes the central view."""
    shifts: bool = False
    """Measure under changed conditions, beside the teacher itself and the teacher at a lower resolution with as many tokens."""
    focus: bool = False
    """Measure where the student looks; the teacher is not needed for it."""
    masks: Path | None = None
    """With --focus: a folder of masks of the images' objects, at the same relative paths whatever their suffix; what is not zero
    is foreground."""
    boxes: Path | None = None
    """With --focus: boxes around the objects, in a JSON file of COCO's form; names of images are relative to DIR."""
    zero_shot: bool = False
    """Classify the images of class folders by the names of their classes, with the teacher's own text tower (OpenCLIP)."""
    classnames: Path | None = None
    """With --zero-shot: a file with the classes' names, if the folders' own will not do: lines of FOLDER, a tab and the name;
    one name a line in the order of the sorted folders; or a .json object."""
    templates: str = "openai"
    """With --zero-shot: the sentences that names are put in: openai (80 of them), simple (7), or a file with one a line that
    marks the place of the name by {}."""
    captions: Path | None = None
    """Measure image-text retrieval by the captions in this file: .jsonl with {"image": ..., "caption": ...} on each line, or
    .csv with these two columns; names of images are relative to DIR."""
    limit: int = 0
    """Measure on this many images only, drawn evenly from all; 0 takes all."""
    tokens: Annotated[tuple[int, ...], tyro.conf.UseAppendAction] = ()
    """Latent tokens, if not those that the student was configured with; an elastic student serves several numbers. With --focus
    it may be given several times."""
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
        if self.tokens and min(self.tokens) < 1:
            raise ConfigError(f"--tokens must be at least 1, not {min(self.tokens)}.", "Use 16, for example.")
        if len(self.tokens) > 1 and not self.focus:
            raise ConfigError(
                "Several numbers of --tokens go with --focus only.", "Give one number, or measure one after the other."
            )
        if self.tokens and self.shifts:
            raise ConfigError(
                "--shifts measures at the student's own number of tokens, not at --tokens.", "Leave out one of them."
            )
        if self.limit < 0 or self.limit == 1:
            raise ConfigError(f"Nothing can be measured on --limit {self.limit} images.", "Give 2 or more, or 0 for all.")
        self._in_words().check()
        self._of_focus().check(
            asked=self.focus,
            others=self.shifts or self.views > 0 or self._asks_in_words,
            teacher=self.teacher,
        )
        if self._asks_in_words and (self.shifts or self.views):
            raise ConfigError(
                "--zero-shot and --captions measure the central view of an image, without --shifts and --views.",
                "Measure them in another run.",
            )

    def run(self) -> None:
        """Runs the command."""
        console = console_for(as_json=self.json)
        if self._asks_in_words:
            find_images([self.data])
            title = f"{self.run_path} on {self.data}"
            self._in_words().run(self._load, title, console, as_json=self.json)
            return
        if self.focus:
            self._of_focus().run(self.run_path, console, as_json=self.json)
            return
        splits = None if self.views else labelled_splits(self.data)
        find_images([self.data])
        pair = self._load()
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

    def _load(self) -> Pair:
        return load_pair(self.run_path, teacher=self.teacher, tokens=self.tokens[0] if self.tokens else None)

    @property
    def _asks_in_words(self) -> bool:
        return self.zero_shot or self.captions is not None

    def _in_words(self) -> InWords:
        return InWords(
            data=self.data,
            zero_shot=self.zero_shot,
            classnames=self.classnames,
            templates=self.templates,
            captions=self.captions,
            limit=self.limit,
            batch_size=self.batch_size,
            precision=self.precision,
        )

    def _of_focus(self) -> OfFocus:
        return OfFocus(
            data=self.data,
            masks=self.masks,
            boxes=self.boxes,
            limit=self.limit,
            tokens=self.tokens,
            batch_size=self.batch_size,
            precision=self.precision,
        )

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
