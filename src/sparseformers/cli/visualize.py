"""``sparseformers visualize``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sparseformers.cli.output import console_for, embedding_progress, options, print_json, say
from sparseformers.errors import DataError, shorten


@dataclass(frozen=True)
class Visualize:
    """Draw the regions of interest (RoIs) and sampling points of students on photographs.

    An image that cannot be read is left out and named at the end, with exit code 2.

    Example: sparseformers visualize runs/first photos/cat.jpg photos/dog.jpg --out looks.png

    Example: sparseformers visualize runs/first photos --beside sf_base_augreg --beside sf_v1_tiny --out models.pdf

    Example: sparseformers visualize runs/first photos/cat.jpg --figure iterations --out iterations.png --animate glide.webp
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE|NAME")]
    """A run folder, a model file, a file that the authors released, or the name of a released model such as sf_base_augreg."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")]
    """Images, or folders of them; at most 64 in all."""
    out: Path | None = None
    """The figure to write: .png, .pdf, .svg, .jpg or .webp."""
    figure: Literal["models", "iterations", "map", "density", "tokens", "pca"] = "models"
    """models: the input, RoIs at the first, third and last stage, and the last sampling points, of one or several models.
    iterations: the RoIs after every iteration, with the paths of their centres.
    map: where the student expects its teacher to look, beside the teacher's attention, and the leaves (front mixed).
    density: where sampling points fall, as a heat map, beside what the teacher attends to, with their rank correlation.
    tokens: the most influential tokens, with what they see cut out.
    pca: the teacher's patch features beside the student's tokens, and its feature map, on one grid and in the same colours."""
    animate: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write RoIs gliding from the initial grid through the iterations: .gif, .webp or .mp4 (the latter asks for the
    extra 'video')."""
    beside: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="RUN|FILE|NAME")] = ()
    """Another model to draw beside the first (figure models); may be repeated."""
    view: Literal["whole", "own"] = "whole"
    """The part of a photograph that a student is given: all of it in its own shape, with as many pixels as it is made for; or its
    own view, as when it embeds, which is often a central crop: what lies outside is drawn dark."""
    stages: tuple[int, ...] | None = None
    """Stages to draw the RoIs of (figure models): 0 is the start, i comes after the i-th iteration, -1 is the last."""
    count: int = 8
    """Number of tokens to show (figure tokens)."""
    teacher: str | None = None
    """Teacher to load, if it is not where it was (figures map, density and pca)."""
    columns: int | None = None
    """Photographs side by side; by default as many as make the sheet about square."""
    size: int | None = None
    """Pixels along the longer side of a panel: by default 375, and 320 in an animation."""
    json: bool = False
    """Print what was written and what was skipped as JSON."""

    def run(self) -> None:
        """Runs the command; raises DataError at the end for images that could not be read."""
        from sparseformers.figures import visualize

        console = console_for(as_json=self.json)
        given = options(self, without=("model", "images", "json"))
        done = visualize(self.model, self.images, **given, progress=partial(embedding_progress, console))
        if self.json:
            print_json(done.to_dict())
        images = f"{done.drawn} image{'' if done.drawn == 1 else 's'}"
        say(console, f"{images} drawn to {' and '.join(done.written)}")
        if done.skipped:
            named = shorten(f"{path} ({reason})" for path, reason in done.skipped.items())
            total = done.drawn + len(done.skipped)
            raise DataError(f"{len(done.skipped)} of {total} images cannot be read: {named}.", "The others are drawn.")
