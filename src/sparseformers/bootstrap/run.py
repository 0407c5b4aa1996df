"""One bootstrapping run from settings to a finished folder, and going on with one that was stopped."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from sparseformers.bootstrap.card import write_card
from sparseformers.bootstrap.config import BootstrapConfig
from sparseformers.bootstrap.heartbeat import Heartbeat
from sparseformers.bootstrap.make_cache import prepare_cache, require_room
from sparseformers.bootstrap.meters import peak_memory
from sparseformers.bootstrap.peers import Peers, together
from sparseformers.bootstrap.precision import resolve_precision
from sparseformers.bootstrap.progress import TrainingProgress
from sparseformers.bootstrap.reporting import Reporter
from sparseformers.bootstrap.restart import is_restart, launch
from sparseformers.bootstrap.run_folder import RunFolder
from sparseformers.bootstrap.setup import Parts, gather_parts
from sparseformers.bootstrap.sharding import unsharded
from sparseformers.bootstrap.trackers import Trackers, chosen_trackers
from sparseformers.bootstrap.trainer import Trainer
from sparseformers.data import UnreadableImageError, evaluation_view, read_image
from sparseformers.evaluate import Alignment, Cost, measure_cost
from sparseformers.inherit import InheritReport
from sparseformers.processes import chosen_by_first, make_accelerator, process_state
from sparseformers.settings import to_dict
from sparseformers.visualize import curves_figure, draw_focus, save_figure, trace_focus

PICTURED_IMAGES = 6
"""How many held-out images the run's picture shows."""


@dataclass(frozen=True)
class RunSummary:
    """What came of a run."""

    path: Path
    """The run folder."""
    alignment: Alignment
    """On the held-out images, at the end."""
    samples: int
    """Images seen."""
    seconds: float
    """Time spent training."""
    images_per_second: float
    """Over the whole training."""
    data_wait: float
    """Share of the time spent waiting for images, in [0, 1]."""
    peak_memory_gib: float
    """Most memory held."""
    skipped: int
    """Images that could not be read."""
    non_finite_steps: int
    """Steps that were skipped because the loss or its gradient was not a finite number."""
    student_cost: Cost
    """Of the student at the run's image size."""
    teacher_cost: Cost
    """Of the teacher at the run's image size."""
    report: InheritReport
    """What was inherited."""
    view_cache: Path | None
    """The cache of views that was trained on, a folder named by its key; None without one."""


def bootstrap(
    settings: BootstrapConfig,
    out: str | Path,
    *,
    overwrite: bool = False,
    teacher: nn.Module | None = None,
    console: Console | None = None,
) -> RunSummary:
    """Makes a SparseFormer of a teacher and aligns it on plain images.

    Args:
        settings: what to do.
        out: the run folder to make.
        overwrite: whether to replace a run that is there.
        teacher: a module (a timm ``VisionTransformer`` or a :class:`~sparseformers.teachers.Teacher`) to use instead of
            loading ``settings.teacher``; such a run cannot be resumed by name.
        console: for progress; quiet by default.

    Raises:
        SparseFormersError: one of its kinds, with what to do, before anything is written where possible.
    """
    with together(make_accelerator()) as peers:
        return _bootstrap(settings.absolute(), Path(out), peers, overwrite=overwrite, teacher=teacher, console=console)


def _bootstrap(
    settings: BootstrapConfig, out: Path, peers: Peers, *, overwrite: bool, teacher: nn.Module | None, console: Console | None
) -> RunSummary:
    """As :func:`bootstrap`, in each process."""
    accelerator = make_accelerator()
    chosen_trackers(settings.trackers)
    restarted = chosen_by_first(lambda: is_restart(out, settings), accelerator)
    if restarted and chosen_by_first(RunFolder(out).checkpoint.is_file, accelerator):
        return _resume(out, peers, console)
    if accelerator.is_main_process:  # before anything is loaded
        RunFolder.refuse(out, overwrite=overwrite or restarted)
    precision = chosen_by_first(lambda: resolve_precision(settings.precision, accelerator.device), accelerator)
    parts = gather_parts(settings, device=accelerator.device, teacher=teacher, precision=precision)
    if accelerator.is_main_process:
        require_room(parts)
    run = RunFolder.create(out, overwrite=overwrite or restarted) if accelerator.is_main_process else RunFolder(out)
    if accelerator.is_main_process:
        run.write_config(to_dict(settings), resolved_choices(parts))
    accelerator.wait_for_everyone()
    return _train(parts, run, peers, console, resume=False)


def resume(path: str | Path, *, console: Console | None = None) -> RunSummary:
    """Goes on with a run from its last checkpoint, with its own settings.

    Raises:
        RunError: if ``path`` is no run, or has no checkpoint.
    """
    with together(make_accelerator()) as peers:
        return _resume(Path(path), peers, console)


def _resume(path: Path, peers: Peers, console: Console | None) -> RunSummary:
    """As :func:`resume`, in each process."""
    run = RunFolder.existing(path)
    accelerator = make_accelerator()
    content = run.read_config()
    chosen_trackers(run.settings().trackers)
    parts = gather_parts(run.settings(), device=accelerator.device, precision=content["resolved"].get("precision"))
    parts.inheritance.provenance.require_same_teacher(content["resolved"].get("teacher_fingerprint"))
    return _train(parts, run, peers, console, resume=True)


def resolved_choices(parts: Parts) -> dict[str, Any]:
    """What became of the settings that were left open, and which teacher it was."""
    identity, provenance = parts.teacher.identity, parts.inheritance.provenance
    return {
        "teacher": to_dict(identity),
        "teacher_fingerprint": provenance.teacher_fingerprint,
        "shares": to_dict(provenance.shares),
        "model": to_dict(parts.inheritance.student.config),
        "parameters": parts.inheritance.report.parameters,
        "precision": parts.precision,
        "workers": parts.workers,
        "device": str(parts.device),
        "train_images": len(parts.train),
        "held_out_images": len(parts.held_out),
        "budget_samples": parts.budget.samples,
        "budget_seconds": parts.budget.seconds,
        "view_cache": _cache_choice(parts),
        "launch": launch(),
        "processes": process_state().num_processes,
    }


def _cache_choice(parts: Parts) -> dict[str, str] | None:
    """Which cache of views the run trains on."""
    if parts.cache_key is None:
        return None
    return {"folder": str(parts.cache_folder), "key": parts.cache_key.digest}


def _train(parts: Parts, run: RunFolder, peers: Peers, console: Console | None, *, resume: bool) -> RunSummary:
    accelerator = make_accelerator()
    quiet = console is None or not accelerator.is_main_process
    console = Console(quiet=True) if quiet or console is None else console
    writes = accelerator.is_main_process
    with run.logging(peers.process) as logger, Heartbeat(run.heartbeat, writes=writes) as heartbeat, peers.recorded(logger):
        cache = prepare_cache(parts, accelerator, console)
        trainer = Trainer(parts, run, accelerator, resume=resume, cache=cache)
        if resume and accelerator.is_main_process:
            run.rewind_metrics(trainer.state.samples)
        logger.info("%s from %d images seen", "resumed" if resume else "started", trainer.state.samples)
        progress = parts.budget.progress(samples=trainer.state.samples, seconds=trainer.state.seconds)
        trackers = Trackers(parts.settings, run, samples=trainer.state.samples, writes=writes)
        heartbeat.tell(trainer.state, progress)
        with closing(trackers), TrainingProgress(console, progress) as bar:
            alignment = trainer.train(Reporter(run, trainer.meters, bar, trackers, heartbeat, writes=writes))
        parts = unsharded(parts)
        summary = _summarise(parts, run, trainer, alignment)
        if accelerator.is_main_process:
            _draw(parts, run)
            write_card(run.card, parts, summary_figures(summary))
        logger.info("finished: held-out centred cosine %.4f", alignment.centred_cosine)
    return summary


def _summarise(parts: Parts, run: RunFolder, trainer: Trainer, alignment: Alignment) -> RunSummary:
    state, meters = trainer.state, trainer.meters
    figures = [entry for entry in run.read_metrics() if entry["kind"] == "train"]
    return RunSummary(
        path=run.path,
        alignment=alignment,
        samples=state.samples,
        seconds=state.seconds,
        images_per_second=state.samples / state.seconds if state.seconds else 0.0,
        data_wait=meters.data_wait(),
        peak_memory_gib=max([peak_memory(parts.device) / 2**30, *(entry["peak_memory_gib"] for entry in figures)]),
        skipped=len(trainer.skipped),
        non_finite_steps=meters.non_finite,
        student_cost=measure_cost(parts.inheritance.student, parts.size),
        teacher_cost=measure_cost(parts.teacher, parts.size),
        report=parts.inheritance.report,
        view_cache=parts.cache_folder,
    )


def summary_figures(summary: RunSummary) -> dict[str, Any]:
    """The summary as plain JSON values."""
    return to_dict(summary)


def _draw(parts: Parts, run: RunFolder) -> None:
    """RoIs on the first held-out images that can be read, and the curves of the training."""
    view, images, titles = evaluation_view(parts.teacher.preprocessing), [], []
    for path in parts.held_out:
        try:
            images.append(view(read_image(path)))
        except UnreadableImageError:
            continue
        titles.append(path.name)
        if len(images) == PICTURED_IMAGES:
            break
    student = parts.inheritance.student
    save_figure(draw_focus(trace_focus(student, torch.stack(images).to(parts.device), titles)), run.picture)
    save_figure(curves_figure(run.read_metrics()), run.curves)
