"""A comparison that is done in seconds: the tiny teacher, three classes of generated photographs, trainings of two steps."""

from pathlib import Path

from benchmarks.recipes import ComparisonConfig, Findings
from tests.tiny import SIDE, write_images, write_teacher

Finished = tuple[ComparisonConfig, Findings]
CLASSES = ("apple", "bird", "cup")
TRAIN, TEST = 5, 4  # images of each class
TINY = ("focusing_width=64", "channels=8", "points=4", "batch_size=4", "precision=fp32", "workers=0", "holdout=0.3")
"""Settings of a small and fast student."""


def write_classes(folder: Path) -> Path:
    """Writes train/CLASS/* and test/CLASS/*, no two images alike."""
    for part, (split, count) in enumerate((("train", TRAIN), ("test", TEST))):
        for number, name in enumerate(CLASSES):
            write_images(folder / split / name, count, seed=10 * number + part)
    return folder


def tiny_comparison(folder: Path, *, classes: int = len(CLASSES), **changes: object) -> ComparisonConfig:
    """A comparison in ``folder``, whose teacher has an output for each of the classes."""
    images = write_classes(folder / "images") if not (folder / "images").is_dir() else folder / "images"
    options = {
        "teacher": write_teacher(folder / "teacher.safetensors", classes=classes),
        "data": (images / "train",),
        "eval_data": images,
        "out": folder / "comparison",
        "budget": "8-samples",
        "image_size": SIDE,
        "tokens": 4,
        "seeds": 2,
        "eval_points": 2,
        "overrides": TINY,
    }
    return ComparisonConfig(**(options | changes))  # type: ignore[arg-type]
