"""Which images are trained on, which are held out, and what class folders say about them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparseformers.data.images import find_images, images_under
from sparseformers.errors import ConfigError, DataError, shorten

TRAIN_FOLDER = "train"
TEST_FOLDERS = ("test", "val", "validation")
"""Names of the folder with the labelled test images; the first that is there counts."""
OTHER_FOLDERS = ("unlabelled", "unlabeled")
"""Names of folders that data sets keep beside ``train`` and ``test`` and that are no classes."""


def split_holdout(paths: Sequence[Path], share: float, *, seed: int) -> tuple[list[Path], list[Path]]:
    """Parts images into those to train on and those to hold out.

    Each image is drawn by a hash of the seed and of its path relative to the common root, so images that are added
    later do not move the others from one part to the other.

    Args:
        paths: the images.
        share: of them to hold out, in [0, 1); the drawn share differs a little. Above 0, at least two images are held
            out (nearness is measured between images), as far as one is left to train on.
        seed: another one draws other images.

    Returns:
        The images to train on and those held out, each in the order of ``paths``.

    Raises:
        ConfigError: for a share outside [0, 1).
    """
    root = Path(os.path.commonpath([path.parent.absolute() for path in paths])) if paths else Path()
    names = (path.absolute().relative_to(root).as_posix() for path in paths)
    held_out = set(held_out_places(names, len(paths), share, seed=seed))
    return (
        [path for place, path in enumerate(paths) if place not in held_out],
        [path for place, path in enumerate(paths) if place in held_out],
    )


def held_out_places(names: Iterable[str], count: int, share: float, *, seed: int) -> list[int]:
    """The places of the names that are held out, increasing; see :func:`split_holdout`.

    Args:
        names: of all images.
        count: how many there are.
        share: of them to hold out, in [0, 1).
        seed: another one draws others.

    Raises:
        ConfigError: for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ConfigError(f"The held-out share must be in [0, 1), not {share}.", "Use 0.05, for example.")
    if share == 0 or count < 2:
        return []
    below: list[tuple[float, int]] = []
    least: list[tuple[float, int]] = []
    for place, name in enumerate(names):
        draw = (_draw(name, seed), place)
        if draw[0] < share:
            below.append(draw)
        if len(least) < 2 or draw < least[-1]:
            least = sorted([*least, draw])[:2]
    drawn = sorted(below if len(below) >= 2 else least)[: count - 1]
    return sorted(place for _, place in drawn)


def _draw(name: str, seed: int) -> float:
    """A number in [0, 1) that belongs to this name and seed."""
    digest = hashlib.blake2b(f"{seed}\n{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True)
class LabelledImages:
    """Images that class folders label."""

    paths: tuple[Path, ...]
    """The images, class by class."""
    labels: tuple[int, ...]
    """The index of each image's class in ``class_names``."""
    class_names: tuple[str, ...]
    """The names of the class folders, sorted."""


def labelled_splits(folder: Path) -> dict[str, LabelledImages] | None:
    """Reads labels off class folders.

    Args:
        folder: with ``train/CLASS/*`` and ``test/CLASS/*`` (or ``val``, ``validation``), or with ``CLASS/*``; images may
            lie deeper inside a class folder.

    Returns:
        The parts ``train`` and ``test`` with the same ``class_names``, those of ``train``; or the part ``all``, also
        where there is a ``train`` folder alone; or None where fewer than two class folders hold images.

    Raises:
        DataError: for a missing folder, or a class of the test part that the training part lacks.
    """
    find_images([folder])
    train = _class_folders(folder / TRAIN_FOLDER)
    test = next((classes for name in TEST_FOLDERS if (classes := _class_folders(folder / name))), {})
    if len(train) >= 2 and test:
        if unknown := test.keys() - train.keys():
            named = shorten(f"'{name}'" for name in unknown)
            raise DataError(
                f"The test images of '{folder}' have classes that the training images lack: {named}.",
                "Add training images of them, or remove these folders.",
            )
        names = tuple(sorted(train))
        return {"train": _labelled(train, names), "test": _labelled(test, names)}
    alone = train if len(train) >= 2 else _class_folders(folder)
    return {"all": _labelled(alone, tuple(sorted(alone)))} if len(alone) >= 2 else None


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    """The images of each folder in ``folder`` that holds any; of folders named for a part of a data set, none."""
    if not folder.is_dir():
        return {}
    parts = {TRAIN_FOLDER, *TEST_FOLDERS, *OTHER_FOLDERS}
    places = [place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")]
    classes = {place.name: images_under([place]) for place in places if place.name not in parts}
    return {name: images for name, images in classes.items() if images}


def _labelled(classes: dict[str, list[Path]], names: tuple[str, ...]) -> LabelledImages:
    pairs = [(path, label) for label, name in enumerate(names) for path in classes.get(name, [])]
    return LabelledImages(tuple(path for path, _ in pairs), tuple(label for _, label in pairs), names)
