"""One command from nothing to a bootstrapped SparseFormer, its figures and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sparseformers.data import default_workers, find_images, fixed_views
from sparseformers.demo.photographs import gather_photographs
from sparseformers.evaluation import Alignment, embed, measure_alignment
from sparseformers.inheritance import inherit
from sparseformers.model import SparseFormer
from sparseformers.modes import autocast_dtype, resolve_precision
from sparseformers.saving import load
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.train import BootstrapConfig, RunFolder, RunSummary, bootstrap

IMAGE_SIZE = 224  # side in pixels: the teacher's own; the student has a quarter of its tokens
BATCH_SIZE = 16  # small, for many steps in few minutes
LEARNING_RATE = 1e-5
"""Gentle: at the usual rate a student of fifteen photographs forgets what the teacher knows of others."""
VIEWS = 16  # fixed random crops of each held-out region and photograph to measure on


@dataclass(frozen=True)
class DemoSummary:
    """Alignment on held-out regions of the photographs and on whole ones, before the first step and at the end."""

    run: RunSummary
    start: Alignment
    regions: Alignment
    whole_start: Alignment
    whole: Alignment


def run_demo(out: Path, *, minutes: float, seed: int = 0, overwrite: bool = False, console: Console | None = None) -> DemoSummary:
    """Bootstraps from the bundled teacher on the photographs of installed packages, and evaluates on held-out views.

    The photographs are put beside the run folder, in ``OUT-photographs``.
    """
    RunFolder.refuse(out, overwrite=overwrite)
    folders = gather_photographs(out.absolute().with_name(f"{out.absolute().name}-photographs"))
    settings = BootstrapConfig.of(
        teacher="bundled",
        data=(folders.train,),
        eval_data=(folders.regions,),
        eval_views=VIEWS,
        image_size=IMAGE_SIZE,
        augment="strong",
        batch_size=BATCH_SIZE,
        lr=LEARNING_RATE,
        minutes=minutes,
        seed=seed,
    )
    run = bootstrap(settings, out, overwrite=overwrite, console=console)
    first = next(entry for entry in RunFolder(out).read_metrics() if entry["kind"] == "held_out")
    start = Alignment(**{name: first[name] for name in vars(run.alignment)})
    teacher = load_teacher("bundled", image_size=IMAGE_SIZE)
    return DemoSummary(
        run=run,
        start=start,
        regions=run.alignment,
        whole_start=_measure_whole(inherit(teacher).student.eval(), teacher, folders.whole, settings),
        whole=_measure_whole(load(out), teacher, folders.whole, settings),
    )


def _measure_whole(student: SparseFormer, teacher: Teacher, folder: Path, settings: BootstrapConfig) -> Alignment:
    device = next(student.parameters()).device
    views = fixed_views(
        find_images([folder]),
        size=(IMAGE_SIZE, IMAGE_SIZE),
        views_per_image=VIEWS,
        seed=settings.optimisation.seed,
        workers=default_workers(),
    )
    autocast = autocast_dtype(resolve_precision("auto", device))
    embedded = embed(student, teacher, views, device=device, autocast=autocast)
    return measure_alignment(embedded.student, embedded.teacher)
