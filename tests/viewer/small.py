"""A small student whose regions move, with its teacher, photographs, and a page's session over them."""

from pathlib import Path
from typing import NamedTuple

import torch

from sparseformers.inheritance import inherit
from sparseformers.model import SparseFormer
from sparseformers.saving import save
from sparseformers.teachers import load_teacher
from sparseformers.viewer import ViewConfig
from sparseformers.viewer.session import Networks, ShownModel, load_networks
from tests.tiny import SIDE, write_images, write_teacher

TOKENS = 6


class Small(NamedTuple):
    """What the tests of the page have on the disk."""

    folder: Path  # where all of it lies
    model: Path  # a student with a movable front; its teacher can be found
    other: Path  # a second student of the same teacher, of other stages and tokens
    orphan: Path  # the first student, without knowledge of its teacher
    photos: Path  # twelve photographs, and one file that is none
    networks: Networks  # the first student and its teacher, loaded


def make_small(folder: Path) -> Small:
    """Writes and loads all of it; random, but in the branches that start at zero, too, so that regions depend on the image."""
    name = write_teacher(folder / "teacher.safetensors")
    teacher = load_teacher(name, image_size=SIDE)
    paths = [folder / f"{part}.safetensors" for part in ("model", "other", "orphan")]
    for number, path in enumerate(paths):
        front = {"front": "grid", "tokens": 4} if number == 1 else {"front": "focusing", "tokens": TOKENS}
        sizes = {} if number == 1 else {"focusing_width": 64, "channels": 8, "points": 4, "iterations": 3}
        student, _, provenance = inherit(teacher, **front, **sizes)  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(5)
            for parameter in student.focusing.parameters():
                parameter.add_(0.03 * torch.randn_like(parameter))
        save(student, path, provenance=None if number == 2 else provenance)
    photos = folder / "photos"
    write_images(photos, 12)
    (photos / "broken.jpg").write_bytes(b"this is no image")
    return Small(folder, *paths, photos, load_networks(str(paths[0])))


def networks_of(student: SparseFormer, name: str = "student") -> Networks:
    """A student that was never saved, without a teacher."""
    return Networks((ShownModel(name, student.eval()),), None, "Without the teacher: there is none.", torch.device("cpu"))


def config_of(small: Small, **options: object) -> ViewConfig:
    """Settings of a page over the photographs, with some of them changed."""
    return ViewConfig(**{"run": str(small.model), "images": (small.photos,), **options})  # type: ignore[arg-type]
