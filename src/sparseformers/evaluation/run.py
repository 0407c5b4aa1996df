"""``evaluate``: a student beside its teacher on a folder of images, from the files to the report."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.table import Table
from torch import Tensor

from sparseformers.data import Batch, LabelledImages, find_images, fixed_views
from sparseformers.errors import ConfigError
from sparseformers.evaluation.alignment import Alignment, knn_accuracy, measure_alignment
from sparseformers.evaluation.conditions import shift_conditions
from sparseformers.evaluation.embeddings import Embedded, ImageFolder, Network, Progress, embed, silent
from sparseformers.evaluation.rebuilt import LowResolutionTeacher
from sparseformers.evaluation.roi_report import RoIReports, report_rois
from sparseformers.evaluation.shifts import ShiftReport, measure_shifts, views_of
from sparseformers.evaluation.words import WordReport, Words, measure_words
from sparseformers.opening import GivenTeacher, Model, Pair, model_name, open_pair, with_tokens
from sparseformers.settings import to_dict


@dataclass(frozen=True)
class Evaluation:
    """A student beside its teacher on one set of images; accuracies are shares in [0, 1], None where they cannot be had."""

    alignment: Alignment
    knn_teacher: float | None = None
    """Weighted k-nearest-neighbour top-1 (k = 20, temperature 0.07) of the teacher."""
    knn_student: float | None = None
    """The same of the student, in its own index."""
    knn_drop_in: float | None = None
    """The same of the student's queries against the teacher's index: the drop-in case."""
    classifier_teacher: float | None = None
    """Top-1 of the teacher's own classifier."""
    classifier_student: float | None = None
    """Top-1 of that classifier on the student's embeddings."""
    classifier_agreement: float | None = None
    """Share of images to which student and teacher give the same top-1 class; needs no labels."""
    skipped: int = 0
    """Images that could not be read; no figure counts them."""
    skipped_images: tuple[str, ...] = ()
    """Their names and what was wrong with them."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return to_dict(self)

    def tables(self, title: str) -> list[Table]:
        """One table: centred cosine first, and beside it what a constant output or chance would score."""
        alignment = self.alignment
        skipped = f", {self.skipped} unreadable skipped" if self.skipped else ""
        table = Table(title=title, caption=f"{alignment.images} images{skipped}")
        table.add_column("measure")
        for column in ("teacher", "student", "baseline"):
            table.add_column(column, justify="right")
        table.add_row("centred cosine to the teacher", "", f"{alignment.centred_cosine:.3f}", "0.000 (constant output)")
        constant = f"{alignment.constant_baseline:.3f} (constant output)"
        table.add_row("cosine, mean", "", f"{alignment.cosine_mean:.3f}", constant)
        table.add_row("cosine, median", "", f"{alignment.cosine_median:.3f}", "")
        table.add_row("cosine, 5th percentile", "", f"{alignment.cosine_p05:.3f}", "")
        chance = f"{alignment.neighbour_chance:.1%} (chance)"
        nearest = f"agreement of the {alignment.neighbours} nearest neighbours"
        table.add_row(nearest, "", f"{alignment.neighbour_agreement:.1%}", chance)
        for measure, teacher, student in (
            ("k-NN top-1", self.knn_teacher, self.knn_student),
            ("k-NN top-1 in the teacher's index", self.knn_teacher, self.knn_drop_in),
            ("classifier top-1", self.classifier_teacher, self.classifier_student),
            ("same top-1 class as the teacher", None, self.classifier_agreement),
        ):
            if teacher is not None or student is not None:
                table.add_row(measure, *("" if share is None else f"{share:.1%}" for share in (teacher, student)), "")
        return [table]


EvaluationReport = Evaluation | ShiftReport | RoIReports | WordReport


def evaluate(
    run: Model,
    data: str | Path,
    *,
    views: int = 0,
    shifts: bool = False,
    focus: bool = False,
    masks: str | Path | None = None,
    boxes: str | Path | None = None,
    zero_shot: bool = False,
    classnames: str | Path | None = None,
    templates: str = "openai",
    captions: str | Path | None = None,
    limit: int = 0,
    tokens: int | Sequence[int] = (),
    teacher: GivenTeacher | None = None,
    batch_size: int = 32,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    progress: Progress | None = None,
) -> EvaluationReport:
    """Measures how near a student is to its teacher on a folder of images, as the command ``evaluate`` does.

    With class folders in ``data`` (train/CLASS and test/CLASS, or CLASS), nearest-neighbour and classifier accuracy are measured
    too.

    Args:
        run: a student, or where it is.
        data: the folder of images.
        views: fixed random crops of each image to measure on (no classes then); 0 takes the central view.
        shifts: measure under changed conditions, beside the teacher at a lower resolution with as many tokens.
        focus: measure where moving RoIs go; the teacher is not needed for it.
        masks: with ``focus``, a folder of masks of the images' objects, at the same relative paths whatever their suffix.
        boxes: with ``focus``, a JSON file of COCO's form with boxes around them.
        zero_shot: classify by the names of the class folders, with the teacher's own text tower (OpenCLIP).
        classnames: with ``zero_shot``, a file with the classes' names.
        templates: with ``zero_shot``, the sentences that names are put in: ``openai``, ``simple``, or a file.
        captions: measure image-text retrieval by the captions in this file.
        limit: measure on this many images only, drawn evenly from all; 0 takes all.
        tokens: latent tokens, if not those that the student was configured with; with ``focus`` several, one after the other.
        teacher: a teacher, or where to load it from if not from where it was.
        batch_size: images at a time.
        precision: of the matrix products.
        progress: shows how far it has come; nothing by default.

    Returns:
        An :class:`Evaluation`; a :class:`ShiftReport` with ``shifts``, :class:`RoIReports` with ``focus``, and a
        :class:`WordReport` with ``zero_shot`` or ``captions``.

    Raises:
        SparseFormersError: for options that do not go together, files that are missing, or a model or teacher that cannot be had.
    """
    tokens = (tokens,) if isinstance(tokens, int) else tuple(tokens)
    in_words = zero_shot or captions is not None
    _check_numbers(tokens, limit, shifts=shifts, focus=focus)
    _check_kinds(shifts=shifts, focus=focus, views=views, in_words=in_words, with_teacher=teacher is not None)
    needed = {
        "--classnames is for zero-shot classification only": (classnames is not None, "--zero-shot", zero_shot),
        "--templates is for zero-shot classification only": (templates != "openai", "--zero-shot", zero_shot),
        "--masks is for measuring the focus only": (masks is not None, "--focus", focus),
        "--boxes is for measuring the focus only": (boxes is not None, "--focus", focus),
    }
    for problem, (given, option, there) in needed.items():
        if given and not there:
            raise ConfigError(f"{problem}.", f"Add {option}, or leave it out.")
    if masks is not None and boxes is not None:
        raise ConfigError("The foreground is told by --masks or by --boxes, not by both.", "Leave one of them out.")

    folder = ImageFolder(Path(data), limit, batch_size, precision, progress or silent)
    find_images([folder.path])  # before a model is loaded, so that a mistake shows at once
    if focus:
        return report_rois(run, folder, tokens=tokens, masks=_path(masks), boxes=_path(boxes))
    words = Words.read(folder, zero_shot=zero_shot, classnames=_path(classnames), templates=templates, captions=_path(captions))
    splits = None if views or in_words else folder.splits()
    pair = open_pair(run, teacher)
    if shifts:
        return _evaluate_shifts(pair, folder, splits)
    student = with_tokens(pair.student, tokens[0] if tokens else None, model_name(run))
    if in_words:
        return measure_words(words, student, pair, folder)
    report = _evaluate(student, pair, folder, splits, views)
    return dataclasses.replace(report, skipped_images=tuple(folder.skipped.lines()))


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _check_numbers(tokens: Sequence[int], limit: int, *, shifts: bool, focus: bool) -> None:
    if tokens and min(tokens) < 1:
        raise ConfigError(f"--tokens must be at least 1, not {min(tokens)}.", "Use 16, for example.")
    if len(tokens) > 1 and not focus:
        raise ConfigError("Several numbers of --tokens go with --focus only.", "Give one number, or measure one after the other.")
    if tokens and shifts:
        raise ConfigError("--shifts measures at the student's own number of tokens, not at --tokens.", "Leave out one of them.")
    if limit < 0 or limit == 1:
        raise ConfigError(f"Nothing can be measured on --limit {limit} images.", "Give 2 or more, or 0 for all.")


def _check_kinds(*, shifts: bool, focus: bool, views: int, in_words: bool, with_teacher: bool) -> None:
    if focus and (shifts or views or in_words):
        raise ConfigError(
            "--focus measures the central view of an image, without --shifts, --views, --zero-shot and --captions.",
            "Measure them in another run.",
        )
    if focus and with_teacher:
        raise ConfigError("--focus runs the student alone, without --teacher.", "Leave it out.")
    if shifts and views:
        raise ConfigError("--shifts changes the central view of an image and cannot go with --views.", "Leave one of them out.")
    if in_words and (shifts or views):
        raise ConfigError(
            "--zero-shot and --captions measure the central view of an image, without --shifts and --views.",
            "Measure them in another run.",
        )


def _evaluate_shifts(pair: Pair, folder: ImageFolder, splits: Mapping[str, LabelledImages] | None) -> ShiftReport:
    labels, paths = None, folder.images()
    if splits is not None:
        test = folder.judged(splits)
        paths = list(test.paths)
        outputs = align_labels(test.class_names, pair.teacher.identity.class_names)
        if outputs is not None and len(outputs) == pair.teacher.anatomy.classes:
            labels = [outputs[label] for label in test.labels]
    conditions = shift_conditions(pair.teacher.preprocessing, paths)
    side, views = max(1, round(math.sqrt(pair.student.config.focusing.tokens))), len(views_of(conditions))
    with folder.progress(f"{len(paths)} images in {views} views", len(paths) * views) as advance:
        report = measure_shifts(
            pair.student,
            pair.teacher,
            paths,
            conditions,
            labels=labels,
            low_resolution=LowResolutionTeacher(pair.teacher, side).to(pair.device),
            batch_size=folder.batch_size,
            workers=folder.workers,
            device=pair.device,
            autocast=folder.autocast(pair.device),
            progress=advance,
            on_unreadable=folder.skip(paths),
        )
    return dataclasses.replace(report, skipped_images=tuple(folder.skipped.lines()))


def _evaluate(
    student: Network, pair: Pair, folder: ImageFolder, splits: Mapping[str, LabelledImages] | None, views: int
) -> Evaluation:
    """Alignment; with splits of class folders the accuracies, too."""

    def embedded(paths: Sequence[Path], kind: str) -> Embedded:
        preprocessing = pair.teacher.preprocessing
        batches: Iterable[Batch]
        if views:
            batches = fixed_views(
                list(paths),
                size=preprocessing.size,
                views_per_image=views,
                seed=0,
                batch_size=folder.batch_size,
                workers=folder.workers,
            )
        else:
            batches = folder.batches(paths, preprocessing)
        each = max(1, views)
        with folder.progress(kind, len(paths) * each) as advance:
            return embed(
                student,
                pair.teacher,
                batches,
                device=pair.device,
                autocast=folder.autocast(pair.device),
                progress=advance,
                on_unreadable=folder.skip(paths, each),
            )

    if splits is None:
        images = embedded(folder.images(), "images")
        return evaluate_unlabelled(images, skipped=len(folder.skipped))
    test = folder.judged(splits)
    index = splits.get("train")
    of_test = embedded(test.paths, "queries")
    of_index = of_test if index is None else embedded(index.paths, "index")
    return evaluate_labelled(
        of_test,
        test.labels,
        of_index,
        (index or test).labels,
        len(test.class_names),
        index is None,
        class_names=test.class_names,
        teacher_class_names=pair.teacher.identity.class_names,
        skipped=len(folder.skipped),
    )


def evaluate_unlabelled(embedded: Embedded, *, skipped: int = 0) -> Evaluation:
    """Evaluates what needs no labels.

    Args:
        embedded: student's and teacher's embeddings of the same images.
        skipped: how many images could not be read, for the record.

    Raises:
        DataError: for fewer than two images.
    """
    return Evaluation(
        alignment=measure_alignment(embedded.student, embedded.teacher),
        classifier_agreement=_classifier_agreement(embedded),
        skipped=skipped,
    )


def evaluate_labelled(
    embedded_test: Embedded,
    test_labels: Sequence[int] | Tensor,
    embedded_index: Embedded,
    index_labels: Sequence[int] | Tensor,
    class_count: int,
    same_split: bool,
    *,
    class_names: Sequence[str] | None = None,
    teacher_class_names: Sequence[str] | None = None,
    skipped: int = 0,
) -> Evaluation:
    """Evaluates alignment, k-nearest-neighbour classification and the inherited classifier.

    Args:
        embedded_test: the images that are classified.
        test_labels: the class of *every* image of that split in [0, class_count), unreadable ones included: rows find theirs
            through ``embedded_test.indices``.
        embedded_index: the images that vote; the same rows as ``embedded_test`` if ``same_split``.
        index_labels: the class of every image of that split.
        class_count: how many classes there are.
        same_split: there is one split only, so an image does not vote for itself (leave-one-out).
        class_names: names of the labels, in their order (class folders).
        teacher_class_names: names of the classifier's outputs in their order, where known.
        skipped: how many images could not be read, for the record.

    Returns:
        The evaluation; classifier top-1 is None unless the classifier's outputs are these classes.

    Raises:
        DataError: for fewer than two images.
    """
    unlabelled = evaluate_unlabelled(embedded_test, skipped=skipped)
    labels, voters = _labels_of(embedded_test, test_labels), _labels_of(embedded_index, index_labels)

    def knn(queries: Tensor, index: Tensor) -> float:
        return knn_accuracy(queries, labels, index, voters, classes=class_count, exclude_self=same_split)

    if class_names is None or teacher_class_names is None:
        outputs: list[int] | None = list(range(class_count))
    else:
        outputs = align_labels(class_names, teacher_class_names)
    return Evaluation(
        alignment=unlabelled.alignment,
        knn_teacher=knn(embedded_test.teacher, embedded_index.teacher),
        knn_student=knn(embedded_test.student, embedded_index.student),
        knn_drop_in=knn(embedded_test.student, embedded_index.teacher),
        classifier_teacher=_top1(embedded_test.teacher_logits, labels, outputs),
        classifier_student=_top1(embedded_test.student_logits, labels, outputs),
        classifier_agreement=unlabelled.classifier_agreement,
        skipped=skipped,
    )


def align_labels(class_names: Sequence[str], teacher_class_names: Sequence[str] | None) -> list[int] | None:
    """Which output of the teacher's classifier stands for each class folder.

    Args:
        class_names: names of the class folders; a label is a position in it.
        teacher_class_names: names of the classifier's outputs in their order; None where unknown, and then the classifier
            is taken to have been trained on folders of the same order.

    Returns:
        An output for each label; None if a folder's name is no output's, or that of several.
    """
    if teacher_class_names is None:
        return list(range(len(class_names)))
    outputs = {name: output for output, name in enumerate(teacher_class_names)}
    if len(outputs) < len(teacher_class_names) or any(name not in outputs for name in class_names):
        return None
    return [outputs[name] for name in class_names]


def _labels_of(embedded: Embedded, labels: Sequence[int] | Tensor) -> Tensor:
    """The label of each row; rows are fewer than images where some could not be read."""
    return torch.as_tensor(labels, dtype=torch.int64)[embedded.indices]


def _top1(logits: Tensor | None, labels: Tensor, outputs: list[int] | None) -> float | None:
    """Share of rows whose highest logit is that of their label; None unless each logit stands for one class."""
    if logits is None or outputs is None or logits.shape[1] != len(outputs):
        return None
    return (logits.argmax(dim=1) == torch.tensor(outputs)[labels]).double().mean().item()


def _classifier_agreement(embedded: Embedded) -> float | None:
    student, teacher = embedded.student_logits, embedded.teacher_logits
    if student is None or teacher is None or student.shape != teacher.shape:
        return None
    return (student.argmax(dim=1) == teacher.argmax(dim=1)).double().mean().item()
