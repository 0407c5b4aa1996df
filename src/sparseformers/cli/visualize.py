"""``sparseformers visualize``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from sparseformers.cli.output import console_for
from sparseformers.data import UnreadableImageError, evaluation_view, find_images, read_image
from sparseformers.errors import ConfigError, DataError
from sparseformers.saving import load
from sparseformers.visualize import draw_focus, save_figure, trace_focus

MOST_IMAGES = 64
"""How many rows a sheet may have."""


@dataclass(frozen=True)
class Visualize:
    """Draw where a student looks: for each image its RoIs at the first, third and last stage, and the last sampling points.

    Example: sparseformers visualize runs/first photos/cat.jpg photos/dog.jpg --out looks.png
    """

    run_path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    """A run folder or a model file."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")]
    """Images, or folders of them."""
    out: Path
    """The picture to write: .png, .pdf, .svg, .jpg or .webp."""

    def run(self) -> None:
        """Runs the command."""
        console = console_for(as_json=False)
        paths = find_images(self.images)
        if len(paths) > MOST_IMAGES:
            raise ConfigError(f"A sheet takes at most {MOST_IMAGES} images, not {len(paths)}.", "Name fewer of them.")
        student = load(self.run_path)
        view = evaluation_view(student.config.preprocessing)
        views, titles = [], []
        skipped: list[UnreadableImageError] = []
        for path in paths:
            try:
                views.append(view(read_image(path)))
                titles.append(path.name)
            except UnreadableImageError as error:
                skipped.append(error)
        if not views:
            raise DataError(f"None of the {len(paths)} images can be read: {skipped[0].reason}.", "Name others.")
        save_figure(draw_focus(trace_focus(student, torch.stack(views), titles)), self.out)
        for unreadable in skipped:
            console.print(f"skipped {unreadable.path}: {unreadable.reason}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"{len(views)} images drawn to {self.out}", highlight=False, markup=False, soft_wrap=True)
