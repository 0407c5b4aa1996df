"""One command from nothing to a bootstrapped SparseFormer, its figures and a picture.

Its photographs are found in installed wheels; one region of each and two whole ones are held out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from sparseformers.data import default_workers, find_images, fixed_views, read_image
from sparseformers.errors import MissingExtraError
from sparseformers.evaluation import Alignment, embed, measure_alignment
from sparseformers.inheritance import inherit
from sparseformers.model import SparseFormer
from sparseformers.modes import autocast_dtype, resolve_precision
from sparseformers.saving import load
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.train import BootstrapConfig, RunFolder, RunSummary, bootstrap

IMAGE_SIZE = 224  # side in pixels: the teacher's own; the student has a quarter of its tokens
BATCH_SIZE = 16  # small, for many steps in few minutes
LEARNING_RATE = 1e-5  # gentle: at the usual rate a student of fifteen photographs forgets what the teacher knows of others
VIEWS = 16  # fixed random crops of each held-out region and photograph to measure on
TRAINING_PHOTOGRAPHS: dict[str, tuple[str, ...]] = {  # to learn from, by the folder inside the installed package
    "skimage/data": (
        *("astronaut.png", "brick.png", "camera.png", "clock_motion.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
        *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg"),
    ),
    "sklearn/datasets/images": ("china.jpg",),
    "matplotlib/mpl-data/sample_data": ("grace_hopper.jpg",),
}
WHOLE_PHOTOGRAPHS: dict[str, tuple[str, ...]] = {"skimage/data": ("chelsea.png",), "sklearn/datasets/images": ("flower.jpg",)}
"""Photographs that are held out whole: a cat and a flower, nothing like which is among the others."""
PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}
JPEG: dict[str, Any] = {"quality": 95, "subsampling": 0}
LONGEST_SIDE = 640  # larger photographs are reduced to it, so that decoding them does not slow the training
HELD_OUT_SHARE = 0.3  # share of each photograph's longer side that is held out


@dataclass(frozen=True)
class DemoSummary:
    """Alignment on held-out regions of the photographs and on whole ones, before the first step and at the end."""

    run: RunSummary
    start: Alignment
    regions: Alignment
    whole_start: Alignment
    whole: Alignment


def run_demo(out: Path, *, minutes: float, seed: int = 0, overwrite: bool = False, console: Console | None = None) -> DemoSummary:
    """Bootstraps on photographs of installed packages (laid into ``OUT-photographs``), and evaluates on held-out views."""
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
    device, size = next(student.parameters()).device, (IMAGE_SIZE, IMAGE_SIZE)
    options: dict[str, Any] = {"seed": settings.optimisation.seed, "workers": default_workers()}
    views = fixed_views(find_images([folder]), size=size, views_per_image=VIEWS, **options)
    embedded = embed(student, teacher, views, device=device, autocast=autocast_dtype(resolve_precision("auto", device)))
    return measure_alignment(embedded.student, embedded.teacher)


@dataclass(frozen=True)
class PhotographFolders:
    """Folders of JPEG files: photographs without their held-out region, that region of each, and those held out whole."""

    train: Path
    regions: Path
    whole: Path


def gather_photographs(folder: Path) -> PhotographFolders:
    """Cuts the photographs into JPEG files to learn from and to hold out; MissingExtraError if their packages are missing."""
    folders = PhotographFolders(folder / "train", folder / "held_out_regions", folder / "held_out_photographs")
    for place in (folders.train, folders.regions, folders.whole):
        place.mkdir(parents=True, exist_ok=True)
    for path in installed(TRAINING_PHOTOGRAPHS):
        for part, folder in zip(cut(_reduced(path)), (folders.train, folders.regions), strict=True):
            part.save(folder / f"{path.stem}.jpg", **JPEG)
    for path in installed(WHOLE_PHOTOGRAPHS):
        _reduced(path).save(folders.whole / f"{path.stem}.jpg", **JPEG)
    return folders


def _reduced(path: Path) -> Image.Image:
    photograph = read_image(path)
    photograph.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return photograph


def cut(photograph: Image.Image) -> tuple[Image.Image, Image.Image]:
    """A photograph without the last 30% of its longer side, and those 30%: no pixel is in both."""
    width, height = photograph.size
    edge = round(max(width, height) * (1 - HELD_OUT_SHARE))
    corner, start = ((edge, height), (edge, 0)) if width >= height else ((width, edge), (0, edge))
    return photograph.crop((0, 0, *corner)), photograph.crop((*start, width, height))


def installed(photographs: Mapping[str, tuple[str, ...]]) -> list[Path]:
    """Paths of the photographs inside the installed packages, which are not imported for it."""
    paths = []
    for place, names in photographs.items():
        package, _, folder = place.partition("/")
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise MissingExtraError.for_package(PACKAGES[package], "demo")
        paths += [Path(found.origin).parent / folder / name for name in names]
    return paths
