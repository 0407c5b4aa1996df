"""Trains and judges the rows of a bench, one seed after the other; what is finished is not done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from torch import nn

from benchmarks.recipes.baselines import Baselines, baseline_rows
from benchmarks.recipes.config import BenchConfig
from benchmarks.recipes.folder import BenchFolder, Conditions, CurvePoint, RunMeasurement
from benchmarks.recipes.measure import EvaluationImages, Judge, Measurement, TeacherAnswers, teacher_answers
from benchmarks.recipes.progress import Trainings
from benchmarks.recipes.report import BenchReport, RowReport
from sparseformers.data.mixture import check_sources
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
class Bench:
    """A bench that is ready to train: all that its rows have in common, loaded and checked."""

    config: BenchConfig
    """What was asked for."""
    folder: BenchFolder
    """Where to work."""
    conditions: Conditions
    """What all figures hold for."""
    teacher: Teacher
    """At the bench's size, on the device."""
    judge: Judge
    """Measures networks."""
    console: Console
    """For progress."""

    def settings(self, row: Recipe, seed: int) -> BootstrapConfig:
        """The settings of one training."""
        return self.config.settings(row, seed, precision=self.conditions.precision)


def open_bench(config: BenchConfig, console: Console | None = None) -> Bench:
    """Checks and loads what the rows of a bench have in common; cheap checks come first.

    Args:
        config: what to compare under.
        console: for progress; quiet by default.

    Raises:
        SparseFormersError: one of its kinds, if anything that was asked for is not to be had.
    """
    console = Console(quiet=True) if console is None else console
    state = process_state()
    if state.num_processes > 1:
        raise ConfigError(f"A bench runs in one process, not in {state.num_processes}.", "Start it without torchrun.")
    folder, base = BenchFolder(config.out), config.base()
    folder.refuse_others()
    kept = folder.read_conditions()
    check_sources([str(each) for each in config.data])
    images = EvaluationImages.of(config.eval_data)
    teacher = load_teacher(base.teacher, image_size=base.image_size, crop=base.crop)
    conditions = Conditions(
        teacher=base.teacher,
        teacher_fingerprint=teacher.fingerprint(),
        eval_data=str(config.eval_data.absolute()),
        images_digest=images.digest(),
        test_images=len(images.test.paths),
        train_images=len(images.train.paths),
        image_size=teacher.preprocessing.size,
        crop=teacher.preprocessing.crop,
        # Chosen once: what is compared must not depend on how busy the machine is when a bench goes on.
        precision=kept.precision if kept and base.precision == "auto" else resolve_precision(base.precision, state.device),
    )
    folder.keep_conditions(conditions)
    judge = Judge(
        images=images,
        preprocessing=teacher.preprocessing,
        class_names=teacher.identity.class_names,
        precision=conditions.precision,
        device=state.device,
        workers=base.workers,
        console=console,
    )
    return Bench(config, folder, conditions, teacher.to(state.device), judge, console)


def run_rows(bench: Bench, rows: Sequence[Recipe], *, baselines: bool) -> BenchReport:
    """Trains what is not finished, judges what is not judged, and reports all of it.

    Args:
        bench: opened.
        rows: what to compare.
        baselines: whether to measure what a student has to beat without training, too.

    Raises:
        RunError: before any training, if one is there with other settings.
        SparseFormersError: one of its kinds, if a training cannot be made; one whose loss is not finite is only noted.
    """
    config, folder = bench.config, bench.folder
    trainings = [(row, bench.settings(row, seed)) for row in rows for seed in range(config.seeds)]
    finished = {(row.name, settings.seed): folder.is_finished(row.name, settings) for row, settings in trainings}
    answers = teacher_answers(bench.judge, bench.teacher, folder.teacher, bench.conditions.digest())
    progress = Trainings(
        bench.console, len(trainings), unfinished=list(finished.values()).count(False), seconds=_seconds_of(trainings[0][1])
    )
    runs: dict[str, list[RunMeasurement]] = {row.name: [] for row in rows}
    failures: dict[str, list[str]] = {row.name: [] for row in rows}
    for row, settings in trainings:
        try:
            _train(bench, row, settings, progress, finished=finished[row.name, settings.seed])
        except NonFiniteLossError as error:
            failures[row.name].append(f"Seed {settings.seed} of {row.name} came to nothing: {error.problem}")
            progress.failed()
            continue
        measured = _judge(bench, row, settings.seed, answers)
        runs[row.name].append(measured)
        progress.finished(measured.seconds, before=finished[row.name, settings.seed])
    reports = tuple(RowReport(row, tuple(runs[row.name]), tuple(failures[row.name])) for row in rows)
    untrained = _baselines(bench, reports, answers) if baselines else Baselines({}, ())
    report = BenchReport(
        conditions=bench.conditions,
        budget=config.budget,
        tokens=config.tokens,
        teacher=_teacher_itself(bench, answers),
        baselines=untrained.measurements,
        rows=reports,
        notes=(*untrained.notes, *(line for row in reports for line in row.failures)),
    )
    write_json(folder.report, report.to_dict())
    return report


def _train(bench: Bench, row: Recipe, settings: BootstrapConfig, progress: Trainings, *, finished: bool) -> None:
    """Makes a run of a row, or goes on with it, unless it is finished."""
    run, what = bench.folder.run(row.name, settings.seed), f"{row.name}, seed {settings.seed}"
    if finished:
        progress.announce(what, "finished before")
    elif run.checkpoint_folders():
        progress.announce(what, "goes on")
        resume(run.path, console=bench.console)
    else:
        progress.announce(what, "starts")
        bootstrap(settings, run.path, overwrite=True, console=bench.console)


def _judge(bench: Bench, row: Recipe, seed: int, answers: TeacherAnswers) -> RunMeasurement:
    """Measures the student of a finished run, unless that was done before."""
    if (kept := bench.folder.read_measured(row.name, seed)) is not None:
        return kept
    run = bench.folder.run(row.name, seed)
    student, provenance = load_saved(run.path)
    if provenance is None:
        raise WeightsError(
            f"The model in '{run.path}' does not say what it was made from.", "Remove that folder to train it anew."
        )
    curve = _curve(run)
    measured = RunMeasurement(
        seed=seed,
        measurement=bench.judge.measure(student, answers, f"test images by {row.name}, seed {seed}"),
        samples=curve[-1].samples,
        seconds=curve[-1].seconds,
        shares=provenance.shares,
        curve=curve,
    )
    write_json(bench.folder.measured(row.name, seed), to_dict(measured))
    return measured


def _curve(run: RunFolder) -> tuple[CurvePoint, ...]:
    """The held-out measurements of a run; the last one is made at its end."""
    entries = [entry for entry in run.read_metrics() if entry["kind"] == "held_out"]
    if not entries:
        raise DataError(f"The file '{run.metrics}' holds no held-out measurement.", "Remove the run's folder to train it anew.")
    return tuple(CurvePoint(entry["samples"], entry["seconds"], entry["centred_cosine"]) for entry in entries)


def _teacher_itself(bench: Bench, answers: TeacherAnswers) -> Measurement:
    """The teacher judged like a student."""
    skipped = bench.conditions.test_images - len(answers.test.indices)
    return Measurement(
        bench.judge.evaluate(answers.test, answers, skipped), measure_cost(bench.teacher, bench.teacher.preprocessing.size)
    )


def _baselines(bench: Bench, rows: Sequence[RowReport], answers: TeacherAnswers) -> Baselines:
    costs = [run.measurement.cost.multiply_adds for row in rows for run in row.runs]

    def measure(name: str, make: Callable[[], nn.Module]) -> Measurement:
        if (kept := bench.folder.read_baselines().get(name)) is not None:
            return kept
        measurement = bench.judge.measure(make(), answers, f"test images by {name}")
        bench.folder.keep_baseline(name, measurement)
        return measurement

    return baseline_rows(bench.teacher, tokens=bench.config.tokens, multiply_adds=max(costs, default=None), measure=measure)


def _seconds_of(settings: BootstrapConfig) -> float | None:
    """Length of a training, where it is given in minutes."""
    return None if settings.minutes is None else 60 * settings.minutes
