"""The photographs of the demonstration: found in installed wheels, one region of each and two whole ones held out."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sparseformers.data import read_image
from sparseformers.errors import MissingExtraError

TRAINING_PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    "skimage/data": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "clock_motion.png",
        "coffee.png",
        "coins.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "moon.png",
        "motorcycle_left.png",
        "retina.jpg",
    ),
    "sklearn/datasets/images": ("china.jpg",),
    "matplotlib/mpl-data/sample_data": ("grace_hopper.jpg",),
}
"""Photographs to learn from, by the folder inside the installed package."""

WHOLE_PHOTOGRAPHS: dict[str, tuple[str, ...]] = {"skimage/data": ("chelsea.png",), "sklearn/datasets/images": ("flower.jpg",)}
"""Photographs that are held out whole: a cat and a flower, nothing like which is among the others."""

PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}

JPEG: dict[str, Any] = {"quality": 95, "subsampling": 0}
LONGEST_SIDE = 640  # larger photographs are reduced to it, so that decoding them does not slow the training

HELD_OUT_SHARE = 0.3  # share of each photograph's longer side that is held out


@dataclass(frozen=True)
class PhotographFolders:
    """Folders of JPEG files: photographs without their held-out region, that region of each, and those held out whole."""

    train: Path
    regions: Path
    whole: Path


def gather_photographs(folder: Path) -> PhotographFolders:
    """Cuts the photographs into what is learnt from and what is held out, as JPEG files of high quality in ``folder``.

    Raises:
        MissingExtraError: if the packages that ship the photographs are not installed.
    """
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
