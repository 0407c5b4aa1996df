"""The photographs of the demonstration: found in installed wheels, one region of each and two whole ones held out."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
"""Names on the package registry by the names that are imported."""

LONGEST_SIDE = 640
"""Larger photographs are reduced to it, so that decoding them does not slow the training."""

HELD_OUT_SHARE = 0.3
"""Share of each photograph's longer side that is held out."""


@dataclass(frozen=True)
class PhotographFolders:
    """Folders of the parts of the photographs."""

    train: Path
    """Photographs to learn from, each without its held-out region."""
    regions: Path
    """One held-out region of each of them."""
    whole: Path
    """Photographs that are held out whole."""


def gather_photographs(folder: Path) -> PhotographFolders:
    """Cuts the photographs into what is learnt from and what is held out.

    Args:
        folder: to write the parts to, as JPEG of high quality.

    Raises:
        MissingExtraError: if the packages that ship the photographs are not installed.
    """
    folders = PhotographFolders(folder / "train", folder / "held_out_regions", folder / "held_out_photographs")
    for part in (folders.train, folders.regions, folders.whole):
        part.mkdir(parents=True, exist_ok=True)
    for path in installed(TRAINING_PHOTOGRAPHS):
        kept, held_out = cut(_reduced(path))
        _save(kept, folders.train / f"{path.stem}.jpg")
        _save(held_out, folders.regions / f"{path.stem}.jpg")
    for path in installed(WHOLE_PHOTOGRAPHS):
        _save(_reduced(path), folders.whole / f"{path.stem}.jpg")
    return folders


def _reduced(path: Path) -> Image.Image:
    photograph = read_image(path)
    photograph.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return photograph


def _save(photograph: Image.Image, path: Path) -> None:
    photograph.save(path, quality=95, subsampling=0)


def cut(photograph: Image.Image) -> tuple[Image.Image, Image.Image]:
    """A photograph without the last 30% of its longer side, and those 30%: no pixel is in both."""
    width, height = photograph.size
    if width >= height:
        edge = round(width * (1 - HELD_OUT_SHARE))
        return photograph.crop((0, 0, edge, height)), photograph.crop((edge, 0, width, height))
    edge = round(height * (1 - HELD_OUT_SHARE))
    return photograph.crop((0, 0, width, edge)), photograph.crop((0, edge, width, height))


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
