"""``evaluate``: a student beside its teacher on a folder of images, from the files to the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sparseformers.data import Batch, LabelledImages, default_workers, fixed_views, labelled_splits
from sparseformers.errors import ConfigError, as_path
from sparseformers.evaluation.conditions import shift_conditions
from sparseformers.evaluation.dense import DenseReport, measure_dense
from sparseformers.evaluation.embeddings import Embedded, ImageFolder, Network, Progress, embed, silent
from sparseformers.evaluation.rebuilt import LowResolutionTeacher
from sparseformers.evaluation.report import Evaluation, align_labels, evaluate_labelled, evaluate_unlabelled
from sparseformers.evaluation.roi_report import RoIReports, report_rois
from sparseformers.evaluation.shifts import ShiftReport, measure_shifts, views_of
from sparseformers.evaluation.words import WordReport, Words, measure_words
from sparseformers.opening import GivenTeacher, Model, Pair, model_name, open_pair, with_tokens

EvaluationReport: TypeAlias = Evaluation | ShiftReport | RoIReports | WordReport | DenseReport
Splits: TypeAlias = Mapping[str, LabelledImages] | None  # of class folders; None without any


def evaluate(
    run: Model,
    data: str | Path,
    *,
    views: int = 0,
    shifts: bool = False,
    focus: bool = False,
    dense: bool = False,
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

    With class folders in ``data`` (train/CLASS and test/CLASS, or CLASS), nearest-neighbour and classifier accuracy are measured,
    too. ``run`` and ``teacher`` are a student and a teacher, or where they are; ``limit`` images are drawn evenly, 0 takes all.
    ``tokens`` are latent tokens, if not those that the student was configured with.

    - ``views``: on so many fixed random crops of each image (no classes then); 0 takes the central view.
    - ``shifts``: under changed conditions; ``dense``: maps of features, place by place; both beside the teacher at a lower
      resolution. With ``dense`` and a folder of class ``masks`` a segmentation is learnt on the teacher's maps, judged on others.
    - ``focus``: where moving RoIs go, at one number of ``tokens`` or several, without the teacher. Objects are in a folder of
      ``masks``, at the images' relative paths whatever their suffix, or ``boxes``, a JSON file of COCO's form.
    - ``zero_shot``: by the names of the class folders or of a file ``classnames``, in sentences (``templates``: ``openai``,
      ``simple`` or a file), with the teacher's own text tower (OpenCLIP). ``captions``: retrieval by the captions in a file.

    Raises SparseFormersError for options that do not go together, missing files, or a model or teacher that cannot be had.
    """
    tokens = (tokens,) if isinstance(tokens, int) else tuple(tokens)
    in_words = zero_shot or captions is not None
    kinds = {"shifts": shifts, "focus": focus, "dense": dense, "views": bool(views), "in_words": in_words}
    _check_options(tokens, limit, **kinds, teacher=teacher is not None)
    in_need = {"classnames": classnames is not None, "templates": templates != "openai"}
    _check_companion("--zero-shot", "zero-shot classification", zero_shot, in_need)
    _check_companion("--focus", "measuring the focus", focus, {"boxes": boxes is not None})
    _check_companion("--focus or --dense", "measuring the focus or maps", focus or dense, {"masks": masks is not None})
    masks, boxes, classnames, captions = (None if path is None else Path(path) for path in (masks, boxes, classnames, captions))
    if masks is not None and boxes is not None:
        raise ConfigError("The foreground is told by --masks or by --boxes, not by both.", "Leave one of them out.")
    folder = ImageFolder(as_path(data, "The folder of images"), limit, batch_size, precision, progress or silent)
    folder.look()  # before a model is loaded, so that a mistake shows at once
    if focus:
        return report_rois(run, folder, tokens=tokens, masks=masks, boxes=boxes)
    words = Words.read(folder, zero_shot=zero_shot, classnames=classnames, templates=templates, captions=captions)
    splits = None if views or in_words or dense else labelled_splits(folder.path)
    pair = open_pair(run, teacher)
    if dense:
        return measure_dense(pair, folder, masks)
    if shifts:
        return _evaluate_shifts(pair, folder, splits)
    student = with_tokens(pair.student, tokens[0] if tokens else None, model_name(run))
    if in_words:
        return measure_words(words, student, pair, folder)
    return dataclasses.replace(_evaluate(student, pair, folder, splits, views), skipped_images=tuple(folder.skipped.lines()))


def _check_options(
    tokens: Sequence[int], limit: int, *, shifts: bool, focus: bool, dense: bool, views: bool, in_words: bool, teacher: bool
) -> None:
    if tokens and min(tokens) < 1:
        raise ConfigError(f"--tokens must be at least 1, not {min(tokens)}.", "Use 16, for example.")
    if len(tokens) > 1 and not focus:
        raise ConfigError("Several numbers of --tokens go with --focus only.", "Give one number, or measure one after the other.")
    if tokens and (shifts or dense):
        problem = f"--{'shifts' if shifts else 'dense'} measures at the student's own number of tokens, not at --tokens."
        raise ConfigError(problem, "Leave out one of them.")
    if limit < 0 or limit == 1:
        raise ConfigError(f"Nothing can be measured on --limit {limit} images.", "Give 2 or more, or 0 for all.")
    if dense and (shifts or focus or views or in_words):
        problem = "--dense measures the central view of an image, without --shifts, --focus, --views, --zero-shot and --captions."
        raise ConfigError(problem, "Measure them in another run.")
    if focus and (shifts or views or in_words):
        problem = "--focus measures the central view of an image, without --shifts, --views, --zero-shot and --captions."
        raise ConfigError(problem, "Measure them in another run.")
    if focus and teacher:
        raise ConfigError("--focus runs the student alone, without --teacher.", "Leave it out.")
    if shifts and views:
        raise ConfigError("--shifts changes the central view of an image and cannot go with --views.", "Leave one of them out.")
    if in_words and (shifts or views):
        problem = "--zero-shot and --captions measure the central view of an image, without --shifts and --views."
        raise ConfigError(problem, "Measure them in another run.")


def _check_companion(companion: str, purpose: str, there: bool, in_need: Mapping[str, bool]) -> None:
    for option, given in in_need.items():
        if given and not there:
            raise ConfigError(f"--{option} is for {purpose} only.", f"Add {companion}, or leave it out.")


def _evaluate_shifts(pair: Pair, folder: ImageFolder, splits: Splits) -> ShiftReport:
    labels, paths = None, folder.images()
    if splits is not None:
        test = folder.judged(splits)
        paths = list(test.paths)
        outputs = align_labels(test.class_names, pair.teacher.identity.class_names)
        if outputs is not None and len(outputs) == pair.teacher.anatomy.classes:
            labels = [outputs[label] for label in test.labels]
    conditions = shift_conditions(pair.teacher.preprocessing, paths)
    tokens, views = pair.student.config.focusing.tokens, len(views_of(conditions))
    low = LowResolutionTeacher(pair.teacher, tokens).to(pair.device)
    with folder.progress(f"{len(paths)} images in {views} views", len(paths) * views) as advance:
        running = folder.running(pair.device, paths, advance)
        running |= {"batch_size": folder.batch_size, "workers": default_workers()}
        report = measure_shifts(pair.student, pair.teacher, paths, conditions, labels=labels, low_resolution=low, **running)
    return dataclasses.replace(report, skipped_images=tuple(folder.skipped.lines()))


def _evaluate(student: Network, pair: Pair, folder: ImageFolder, splits: Splits, views: int) -> Evaluation:
    def embedded(paths: Sequence[Path], kind: str) -> Embedded:
        preprocessing = pair.teacher.preprocessing
        batches: Iterable[Batch] = folder.batches(paths, preprocessing)
        if views:
            reading: dict[str, Any] = {"batch_size": folder.batch_size, "workers": default_workers()}
            batches = fixed_views(list(paths), size=preprocessing.size, views_per_image=views, seed=0, **reading)
        each = max(1, views)
        with folder.progress(kind, len(paths) * each) as advance:
            return embed(student, pair.teacher, batches, **folder.running(pair.device, paths, advance, views=each))

    if splits is None:
        images = embedded(folder.images(), "images")
        return evaluate_unlabelled(images, skipped=len(folder.skipped))
    test = folder.judged(splits)
    index = splits.get("train")
    of_test = embedded(test.paths, "queries")
    of_index = of_test if index is None else embedded(index.paths, "index")
    names: dict[str, Any] = {"class_names": test.class_names, "teacher_class_names": pair.teacher.identity.class_names}
    labelled = (of_test, test.labels, of_index, (index or test).labels, len(test.class_names), index is None)
    return evaluate_labelled(*labelled, **names, skipped=len(folder.skipped))
