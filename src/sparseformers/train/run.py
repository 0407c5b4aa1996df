"""One bootstrapping run from settings to a finished folder, and going on with one that was stopped."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from torch import nn

from sparseformers.errors import ConfigError, DataError, RunStopped, SparseFormersError, TeacherError, WeightsError, as_path
from sparseformers.modes import resolve_precision
from sparseformers.processes import chosen_by_first, is_restarted, launch, make_accelerator, process_state
from sparseformers.progress import say
from sparseformers.settings import to_dict
from sparseformers.train.callbacks import Callback, attached
from sparseformers.train.callbacks.held_out_record import HeldOutRecord
from sparseformers.train.callbacks.metrics import MetricsLog, chosen_trackers, peak_memory
from sparseformers.train.callbacks.status import Heartbeat
from sparseformers.train.callbacks.summary import Card, ProgressBar, RunSummary, measure_costs, summarise, summary_of_finished
from sparseformers.train.checkpoint import Snapshot, newest_whole, read_checkpoint, remove_leftovers
from sparseformers.train.loop import Trainer
from sparseformers.train.processes import StopSignals, unsharded
from sparseformers.train.recipe import MOVABLE, changed, refuse_changes, settings_of
from sparseformers.train.report import Pictures, ReportPage
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.settings import BootstrapConfig
from sparseformers.train.setup import Parts, fit_front, gather_parts
from sparseformers.train.state import random_state_of
from sparseformers.train.view_cache import prepare_cache, require_room

LOGGER = logging.getLogger("sparseformers")


def bootstrap(
    settings: BootstrapConfig | str | nn.Module | None = None,
    out: str | Path | None = None,
    *,
    teacher: str | nn.Module | None = None,
    recipe: str | Path | None = None,
    overwrite: bool = False,
    console: Console | None = None,
    **options: Any,
) -> RunSummary:
    """Makes a SparseFormer of a teacher and aligns it on plain images, as the command ``bootstrap`` does.

    ``bootstrap(teacher="bundled", data=["photos"], out="runs/first", minutes=60)`` makes the run folder ``out``, in the place of
    one that is there with ``overwrite``. ``settings`` are those to begin with, or the teacher: a name, or a module (a network of
    timm, OpenCLIP or transformers, or a :class:`~sparseformers.teachers.Teacher`), which its run is resumed with. A ``recipe``,
    by its name or its TOML file, counts more than they do, and ``options`` (settings by the words of the command's options, such
    as ``lr`` and ``batch_size``) most. ``console`` is for progress, which is quiet by default. Raises a SparseFormersError of
    some kind, before anything is written where possible, and RunStopped after SIGTERM or Ctrl-C, with the state saved.
    """
    if settings is not None and not isinstance(settings, BootstrapConfig):
        settings, teacher = None, settings
    module = None if isinstance(teacher, str) else teacher
    settings = settings_of(settings, teacher=teacher, recipe=recipe, options=options).absolute()
    if out is None:
        raise ConfigError("No run folder was given.", 'Name the one to make: out="runs/first", for example.')
    out, accelerator = Path(out), make_accelerator()
    chosen_trackers(settings.run.trackers)
    if chosen_by_first(lambda: is_restarted() and _is_run_of(out, settings), accelerator):
        return resume(out, teacher=module, console=console)
    if accelerator.is_main_process:  # before anything is loaded
        RunFolder.refuse(out, overwrite=overwrite)
    precision = chosen_by_first(lambda: resolve_precision(settings.optimisation.precision, accelerator.device), accelerator)
    parts = gather_parts(settings, device=accelerator.device, teacher=module, precision=precision)
    if accelerator.is_main_process:
        require_room(parts)
    run = RunFolder.create(out, overwrite=overwrite) if accelerator.is_main_process else RunFolder(out)
    with run.writing(room_only=True), run.held() if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            run.write_config(to_dict(settings), resolved_choices(parts))
        accelerator.wait_for_everyone()
        return _train(parts, run, _console(console, accelerator))


def _is_run_of(out: Path, settings: BootstrapConfig) -> bool:
    """Whether the run at ``out`` has these settings and was begun by the launcher of this process."""
    try:
        run = RunFolder.existing(out)
        return run.read_config()["resolved"].get("launch") == launch() and run.settings() == settings
    except SparseFormersError:
        return False


def resume(
    run: str | Path,
    *,
    teacher: str | nn.Module | None = None,
    data: Sequence[str | Path] = (),
    eval_data: Sequence[str | Path] = (),
    console: Console | None = None,
    **changes: Any,
) -> RunSummary:
    """Goes on with a run from its newest whole checkpoint, with its own settings; a finished run is left as it is.

    One that was killed before its first checkpoint starts at its beginning. ``teacher`` is the module that it was begun with, if
    it was one; or else it and ``data`` and ``eval_data`` say where teacher and images are now, if they were moved. ``changes``
    are settings without effect on what is learnt (marked ``WITHOUT_EFFECT``), by name; the run keeps them. Raises ConfigError if
    another setting was changed, here or in the run's ``config.json``, RunError if ``run`` is no run or none of its checkpoints is
    whole, another SparseFormersError if teacher or images are not those of the run, and RunStopped as :func:`bootstrap` does.
    """
    folder = RunFolder.existing(as_path(run, "A run folder"))
    (there, note), content = folder.settings_and_note(), folder.read_config()
    name, module = (teacher, None) if isinstance(teacher, str) else (None, teacher)
    moved = {place: value for place, value in zip(MOVABLE, (name, data, eval_data), strict=True) if value}
    settings = changed(there, changes | moved, where="--set of this resume")
    settings = settings.absolute() if moved else settings
    changes_told = [*([note] if note else []), *refuse_changes(there, settings)]
    accelerator = make_accelerator()
    console = _console(console, accelerator)
    chosen_trackers(settings.run.trackers)
    with folder.held() if accelerator.is_main_process else nullcontext():
        return _go_on(folder, settings, changes_told, console, content["resolved"], module)


def _go_on(
    run: RunFolder,
    settings: BootstrapConfig,
    changes: Sequence[str],
    console: Console,
    resolved: Mapping[str, Any],
    teacher: nn.Module | None,
) -> RunSummary:
    accelerator = make_accelerator()
    with run.logging(accelerator.process_index) as logger, run.writing(room_only=True):
        finished = run.is_finished
        checkpoint, notes = (None, []) if finished else chosen_by_first(lambda: newest_whole(run), accelerator)
        if accelerator.is_main_process and not finished:
            _report(console, notes)
            for name in remove_leftovers(run):  # of a kill
                logger.warning("removed what was left unfinished: %s", name)
            if changes:
                run.write_manifest({**run.read_manifest(), "settings": to_dict(settings)})
                logger.info("changed: %s", "; ".join(changes))
        try:
            parts = gather_parts(settings, device=accelerator.device, teacher=teacher, precision=resolved.get("precision"))
        except (DataError, TeacherError, WeightsError) as error:
            option = "--data DATA" if isinstance(error, DataError) else "--teacher TEACHER"
            remedy = f"{error.remedy} If it was moved: sparseformers resume {run.path} {option}"
            raise type(error)(error.problem, remedy) from error
        parts.inheritance.provenance.require_same_teacher(str(resolved.get("teacher_fingerprint")))
        if finished:
            say(console, f"The run '{run.path}' is finished; nothing was changed.")
            if accelerator.is_main_process and not run.report.exists():  # a kill came between it and the card
                ReportPage(run, console).on_end()
            return summary_of_finished(parts, run)
        snapshot = None if checkpoint is None else read_checkpoint(checkpoint)
    return _train(parts, run, console, resumed=True, snapshot=snapshot)


def _console(console: Console | None, accelerator: Accelerator) -> Console:
    return Console(quiet=True) if console is None or not accelerator.is_main_process else console


def _report(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        LOGGER.warning(note)
        say(console, note, "yellow")


def resolved_choices(parts: Parts) -> dict[str, Any]:
    """The values of settings that were left open, and the identity of the teacher."""
    provenance, key = parts.inheritance.provenance, parts.cache_key
    return {
        "teacher": to_dict(parts.teacher.identity),
        "teacher_fingerprint": provenance.teacher_fingerprint,
        "shares": to_dict(provenance.shares),
        "model": to_dict(parts.inheritance.student.config),
        "parameters": parts.inheritance.report.parameters,
        "costs": to_dict(measure_costs(parts)),
        "precision": parts.precision,
        "workers": parts.workers,
        "device": str(parts.device),
        "train_images": len(parts.train),
        "held_out_images": len(parts.held_out),
        "budget_samples": parts.budget.samples,
        "budget_seconds": parts.budget.seconds,
        "view_cache": None if key is None else {"folder": str(parts.cache_folder), "key": key.digest},
        "launch": launch(),
        "processes": process_state().num_processes,
    }


def _train(
    parts: Parts, run: RunFolder, console: Console, *, resumed: bool = False, snapshot: Snapshot | None = None
) -> RunSummary:
    accelerator = make_accelerator()
    writes = accelerator.is_main_process
    with (
        run.logging(accelerator.process_index) as logger,
        Heartbeat(run.heartbeat, writes=writes) as heartbeat,
        _logged(logger, writes=writes),
        run.writing(room_only=True),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # which nothing changes
        cache = prepare_cache(parts, accelerator, console)
        if snapshot is None:
            _report(console, [*parts.inheritance.report.notes, *parts.train.remarks()])
        fit = fit_front(parts, cache, accelerator, console) if snapshot is None else None
        if fit is not None and fit.told:
            logger.info(fit.told)
        trainer = Trainer(parts, run, accelerator, snapshot=snapshot, cache=cache, fit=fit)
        # What was written after that state is measured again.
        record = HeldOutRecord(run.held_out)
        if resumed and writes:
            reached = None if snapshot is None else trainer.state.samples
            run.rewind_metrics(reached)
            record.rewind(reached)
        logger.info("%s from %d images seen", "resumed" if resumed else "started", trainer.state.samples)
        callbacks: list[Callback] = [heartbeat, MetricsLog(run, parts.settings), ProgressBar(console), record]
        callbacks = [*callbacks, Pictures(run), Card(run), ReportPage(run, console)] if writes else []
        with attached(callbacks):
            with StopSignals(speaks=writes) as signals, random_state_of(snapshot, accelerator), trainer.checkpointer:
                alignment = trainer.train(callbacks, signals)
            parts = unsharded(parts)
            bad = {"skipped": len(trainer.skipped), "non_finite_steps": trainer.meters.non_finite}
            summary = summarise(parts, run, trainer.state, **bad, memory=peak_memory(parts.device) / 2**30)
            for callback in callbacks:
                callback.on_end(parts, summary)
        logger.info("finished: held-out centred cosine %.4f", alignment.centred_cosine)
    return summary


@contextmanager
def _logged(logger: logging.Logger, *, writes: bool) -> Iterator[None]:
    """Writes down what ends the training within the context; all but the main process (``writes``) only what nobody foresaw."""
    try:
        yield
    except RunStopped as stopped:
        if writes:
            logger.info("%s", stopped)
        raise
    except BaseException as error:
        foreseen = isinstance(error, SparseFormersError | KeyboardInterrupt)
        if writes or not foreseen:
            logger.error("stopped: %s: %s", type(error).__name__, error, exc_info=None if foreseen else error)
        raise
