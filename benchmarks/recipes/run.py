"""Trains and judges the rows of a comparison, one seed after the other; what is finished is not done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from torch import nn

from benchmarks.recipes.baselines import Baselines, baseline_rows
from benchmarks.recipes.config import ComparisonConfig
from benchmarks.recipes.folder import ComparisonFolder, Conditions, CurvePoint, RunMeasurement
from benchmarks.recipes.measure import EvaluationImages, Judge, Measurement, TeacherAnswers, teacher_answers
from benchmarks.recipes.progress import Trainings
from benchmarks.recipes.report import Findings, RowReport
from sparseformers.data import find_images
from sparseformers.data.huggingface_datasets import DatasetName
from sparseformers.data.mixture import kind_of
from sparseformers.data.shards import find_shards
from sparseformers.errors import ConfigError, DataError, NonFiniteLossError, WeightsError
from sparseformers.evaluation import measure_cost
from sparseformers.files import write_json
from sparseformers.modes import resolve_precision
from sparseformers.processes import process_state
from sparseformers.saving import load_saved
from sparseformers.settings import to_dict
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.train import BootstrapConfig, RunFolder, bootstrap, resume
from sparseformers.train.recipe import Recipe


@dataclass(frozen=True)
class Comparison:
    """A comparison that is ready to train: all that its rows have in common, loaded and checked."""

    config: ComparisonConfig
    folder: ComparisonFolder
    conditions: Conditions
    teacher: Teacher
    judge: Judge
    console: Console

    def settings(self, row: Recipe, seed: int) -> BootstrapConfig:
        """The settings of one training."""
        return self.config.settings(row, seed, precision=self.conditions.precision)


def _require_data(data: Sequence[str]) -> None:
    """Raises DataError or ConfigError for names of data that are wrong, as far as this is quick to find out."""
    folders = [Path(each) for each in data if kind_of(each) == "folder"]
    if folders:
        find_images(folders)
    for each in data:
        if kind_of(each) == "shards":
            find_shards(each)
        elif kind_of(each) == "dataset":
            DatasetName.parse(each)


def open_comparison(config: ComparisonConfig, console: Console | None = None) -> Comparison:
    """Checks and loads what the rows have in common; cheap checks come first.

    Args:
        config: what to compare under.
        console: for progress; quiet by default.

    Raises:
        SparseFormersError: one of its kinds, if anything that was asked for is not to be had.
    """
    console = Console(quiet=True) if console is None else console
    state = process_state()
    if state.num_processes > 1:
        raise ConfigError(f"A comparison runs in one process, not in {state.num_processes}.", "Start it without torchrun.")
    folder, base = ComparisonFolder(config.out), config.base()
    folder.require_ours()
    kept = folder.read_conditions()
    _require_data([str(each) for each in config.data])
    images = EvaluationImages.of(config.eval_data)
    teacher = load_teacher(base.network.teacher, image_size=base.network.image_size, crop=base.network.crop)
    asked = base.optimisation.precision
    conditions = Conditions(
        teacher=base.network.teacher,
        teacher_fingerprint=teacher.fingerprint(),
        eval_data=str(config.eval_data.absolute()),
        images_digest=images.digest(),
        test_images=len(images.test.paths),
        train_images=len(images.train.paths),
        image_size=teacher.preprocessing.size,
        crop=teacher.preprocessing.crop,
        # Chosen once: what is compared must not depend on how busy the machine is when a comparison goes on.
        precision=kept.precision if kept and asked == "auto" else resolve_precision(asked, state.device),
    )
    folder.keep_conditions(conditions)
    judge = Judge(
        images=images,
        preprocessing=teacher.preprocessing,
        class_names=teacher.identity.class_names,
        precision=conditions.precision,
        device=state.device,
        workers=base.run.workers,
        console=console,
    )
    return Comparison(config, folder, conditions, teacher.to(state.device), judge, console)


def run_rows(comparison: Comparison, rows: Sequence[Recipe], *, baselines: bool) -> Findings:
    """Trains what is not finished, judges what is not judged, and reports all of it.

    Args:
        comparison: opened.
        rows: what to compare.
        baselines: whether to measure what a student has to beat without training, too.

    Raises:
        RunError: before any training, if one is there with other settings, or another process works in the folder.
        SparseFormersError: one of its kinds, if a training cannot be made; one whose loss is not finite is only noted.
    """
    with comparison.folder.held():
        return _run_rows(comparison, rows, baselines=baselines)


def _run_rows(comparison: Comparison, rows: Sequence[Recipe], *, baselines: bool) -> Findings:
    config, folder = comparison.config, comparison.folder
    trainings = [(row, comparison.settings(row, seed)) for row in rows for seed in range(config.seeds)]
    finished = {(row.name, settings.optimisation.seed): folder.is_finished(row.name, settings) for row, settings in trainings}
    answers = teacher_answers(comparison.judge, comparison.teacher, folder.teacher, comparison.conditions.digest())
    minutes, unfinished = trainings[0][1].optimisation.minutes, list(finished.values()).count(False)
    progress = Trainings(comparison.console, len(trainings), unfinished=unfinished, seconds=60 * minutes if minutes else None)
    runs: dict[str, list[RunMeasurement]] = {row.name: [] for row in rows}
    failures: dict[str, list[str]] = {row.name: [] for row in rows}
    for row, settings in trainings:
        try:
            _train(comparison, row, settings, progress, finished=finished[row.name, settings.optimisation.seed])
        except NonFiniteLossError as error:
            failures[row.name].append(f"Seed {settings.optimisation.seed} of {row.name} came to nothing: {error.problem}")
            progress.failed()
            continue
        measured = _judge(comparison, row, settings.optimisation.seed, answers)
        runs[row.name].append(measured)
        progress.finished(measured.seconds, before=finished[row.name, settings.optimisation.seed])
    reports = tuple(RowReport(row, tuple(runs[row.name]), tuple(failures[row.name])) for row in rows)
    untrained = _baselines(comparison, reports, answers) if baselines else Baselines({}, ())
    report = Findings(
        conditions=comparison.conditions,
        budget=config.budget,
        tokens=config.tokens,
        teacher=_teacher_itself(comparison, answers),
        baselines=untrained.measurements,
        rows=reports,
        notes=(*untrained.notes, *(line for row in reports for line in row.failures)),
    )
    write_json(folder.report, report.to_dict())
    return report


def _train(comparison: Comparison, row: Recipe, settings: BootstrapConfig, progress: Trainings, *, finished: bool) -> None:
    """Makes a run of a row, or goes on with it, unless it is finished."""
    run, what = comparison.folder.run(row.name, settings.optimisation.seed), f"{row.name}, seed {settings.optimisation.seed}"
    if finished:
        progress.announce(what, "finished before")
    elif run.checkpoint_folders():
        progress.announce(what, "goes on")
        resume(run.path, console=comparison.console)
    else:
        progress.announce(what, "starts")
        bootstrap(settings, run.path, overwrite=True, console=comparison.console)


def _judge(comparison: Comparison, row: Recipe, seed: int, answers: TeacherAnswers) -> RunMeasurement:
    """Measures the student of a finished run, unless that was done before."""
    if (kept := comparison.folder.read_measured(row.name, seed)) is not None:
        return kept
    run = comparison.folder.run(row.name, seed)
    student, provenance = load_saved(run.path)
    if provenance is None:
        raise WeightsError(
            f"The model in '{run.path}' does not say what it was made from.", "Remove that folder to train it anew."
        )
    curve = _curve(run)
    measured = RunMeasurement(
        seed=seed,
        measurement=comparison.judge.measure(student, answers, f"test images by {row.name}, seed {seed}"),
        samples=curve[-1].samples,
        seconds=curve[-1].seconds,
        shares=provenance.shares,
        curve=curve,
    )
    write_json(comparison.folder.measured(row.name, seed), to_dict(measured))
    return measured


def _curve(run: RunFolder) -> tuple[CurvePoint, ...]:
    """The held-out measurements of a run; the last one is made at its end."""
    entries = [entry for entry in run.read_metrics() if entry["kind"] == "held_out"]
    if not entries:
        raise DataError(f"The file '{run.metrics}' holds no held-out measurement.", "Remove the run's folder to train it anew.")
    return tuple(CurvePoint(entry["samples"], entry["seconds"], entry["centred_cosine"]) for entry in entries)


def _teacher_itself(comparison: Comparison, answers: TeacherAnswers) -> Measurement:
    """The teacher judged like a student."""
    teacher, skipped = comparison.teacher, comparison.conditions.test_images - len(answers.test.indices)
    evaluation = comparison.judge.evaluate(answers.test, answers, skipped)
    return Measurement(evaluation, measure_cost(teacher, teacher.preprocessing.size))


def _baselines(comparison: Comparison, rows: Sequence[RowReport], answers: TeacherAnswers) -> Baselines:
    """What needs no training, at the cost of the costliest student; what was measured before is not measured again."""
    costs = [run.measurement.cost.multiply_adds for row in rows for run in row.runs]

    def measure(name: str, make: Callable[[], nn.Module]) -> Measurement:
        if (kept := comparison.folder.read_baselines().get(name)) is not None:
            return kept
        measurement = comparison.judge.measure(make(), answers, f"test images by {name}")
        comparison.folder.keep_baseline(name, measurement)
        return measurement

    most = max(costs, default=None)
    return baseline_rows(comparison.teacher, tokens=comparison.config.tokens, multiply_adds=most, measure=measure)
