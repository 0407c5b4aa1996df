"""``sparseformers visualize``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import track

from sparseformers.cli.figures import FIGURES, OF_TEACHERS, FigureName, Photographs, Request
from sparseformers.cli.output import console_for, print_json
from sparseformers.cli.run_pair import load_teacher_of
from sparseformers.data import find_images
from sparseformers.errors import ConfigError, DataError, SparseFormersError, TeacherError, shorten
from sparseformers.figures import draw_frames, glide, save_animation, save_figure, trace_photographs
from sparseformers.figures.animation import WRITERS, check_animation
from sparseformers.figures.figure import FORMATS, check_target
from sparseformers.figures.layout import LONGEST_SIDE
from sparseformers.figures.sheet import LARGEST_SHEET
from sparseformers.figures.views import ViewKind
from sparseformers.integrations.hub import SparseFormer
from sparseformers.integrations.public import open_model
from sparseformers.processes import process_state
from sparseformers.saving import MODEL_FILE
from sparseformers.teachers import Teacher, load_teacher

ANIMATED_SIDE = 320
"""Pixels along the longer side of a photograph in an animation, unless told otherwise."""
DRAWN_SIDE = 375
"""The same in a figure."""


@dataclass(frozen=True)
class Visualize:
    """Draw where students look: regions of interest (RoIs) and sampling points, on the photographs.

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
    figure: FigureName = "models"
    """models: the input, RoIs at the first, third and last stage, and the last sampling points, of one or several models.
    iterations: the RoIs after every iteration, with the paths of their centres.
    density: where sampling points fall, as a heat map, beside what the teacher attends to, with their rank correlation.
    tokens: the most influential tokens, with what they see cut out.
    pca: the teacher's patch features beside the student's tokens on the same grid, in the same colours."""
    animate: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write RoIs gliding from the initial grid through the iterations: .gif, .webp or .mp4 (the latter asks for the
    extra 'video')."""
    beside: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="RUN|FILE|NAME")] = ()
    """Another model to draw beside the first (figure models); may be repeated."""
    view: ViewKind = "whole"
    """What a student is given of a photograph: all of it in its own shape, at as many pixels as it was made for; or its own
    view, as when it embeds, which is often a central crop: what lies outside is drawn dark."""
    stages: tuple[int, ...] | None = None
    """Of which to draw the RoIs (figure models): 0 is the start, i comes after the i-th iteration, -1 is the last."""
    count: int = 8
    """How many tokens to show (figure tokens)."""
    teacher: str | None = None
    """Where to load the teacher from, if not from where it was (figures density and pca)."""
    columns: int | None = None
    """Photographs side by side; by default as many as make the sheet about square."""
    size: int | None = None
    """Pixels along the longer side of a panel: by default 375, and 320 in an animation."""
    json: bool = False
    """Print what was written and what was skipped as JSON."""

    def __post_init__(self) -> None:
        if self.out is None and self.animate is None:
            raise ConfigError("There is nothing to write.", "Name a file with --out or --animate.")
        if self.out is not None and self.out == self.animate:
            raise ConfigError("--out and --animate cannot be the same file.", "Name two, or leave one of them out.")
        of_models: frozenset[FigureName] = frozenset({"models"})
        given = (("beside", self.beside, of_models), ("stages", self.stages, of_models), ("teacher", self.teacher, OF_TEACHERS))
        for option, value, figures in given:
            if value and self.figure not in figures:
                names = " or ".join(sorted(figures))
                raise ConfigError(f"--{option} goes with --figure {names}, not with {self.figure}.", f"Leave out --{option}.")
        if self.size is not None and not 32 <= self.size <= 4096:
            raise ConfigError(f"A panel cannot have a --size of {self.size} pixels.", "Choose from 32 to 4096.")
        if not self.images:
            raise ConfigError("No image was named.", "Name image files, or folders of them, after the model.")

    def run(self) -> None:
        """Runs the command."""
        console = console_for(as_json=self.json)
        photographs = self._photographs(console)
        self._check_targets(photographs)
        request = self._request(photographs)
        if self.out is not None:
            save_figure(FIGURES[self.figure](request), self.out, dpi=(self.size or DRAWN_SIDE) / LONGEST_SIDE)
        if self.animate is not None:
            self._animate(request, self.animate, console)
        self._tell(photographs, console)

    def _photographs(self, console: Console) -> Photographs:
        paths = find_images(self.images)
        if len(paths) > LARGEST_SHEET:
            raise ConfigError(f"A sheet takes at most {LARGEST_SHEET} images, not {len(paths)}.", "Name fewer of them.")
        return Photographs(paths, console)

    def _check_targets(self, photographs: Photographs) -> None:
        """Finds out before any work whether the files can be written."""
        for target in (self.out, self.animate):
            if target is not None and any(target.absolute() == path.absolute() for path in photographs.paths):
                raise ConfigError(f"'{target}' is one of the images to draw.", "Write to another file.")
        if self.out is not None:
            check_target(self.out, FORMATS)
        if self.animate is not None:
            check_animation(self.animate)
            check_target(self.animate, WRITERS)

    def _request(self, photographs: Photographs) -> Request:
        models: dict[str, SparseFormer] = {}
        for name in (self.model, *self.beside):
            short = name if short_name(name) in models else short_name(name)
            if short in models:
                raise ConfigError(f"The model '{name}' is named twice.", "Name each of them once.")
            models[short] = open_model(name).to(process_state().device)
        needs_teacher = self.figure in OF_TEACHERS and self.out is not None
        return Request(
            models=models,
            photographs=photographs,
            view=self.view,
            teacher=self._teacher(next(iter(models.values()))) if needs_teacher else None,
            stages=self.stages,
            count=self.count,
            columns=self.columns,
            side=self.size or DRAWN_SIDE,
        )

    def _teacher(self, student: SparseFormer) -> Teacher:
        """The teacher that the student was made from, or any that the command line names for a model that does not say.

        Raises:
            SparseFormersError: if it cannot be had.
        """
        own, device = student.config.preprocessing, process_state().device
        if self.teacher is not None:
            if student.provenance is not None:
                return load_teacher_of(student.provenance, self.teacher).to(device)
            return load_teacher(self.teacher, image_size=own.size[0], crop=own.crop).to(device)
        if student.provenance is None:
            raise TeacherError(
                f"The model '{self.model}' does not say which teacher it was made from, and --figure {self.figure} shows it.",
                "Name one with --teacher, or draw another figure.",
            )
        try:
            return load_teacher_of(student.provenance).to(device)
        except SparseFormersError as error:
            raise TeacherError(
                f"--figure {self.figure} needs the teacher, which cannot be loaded from where it was: {error.problem}",
                "Say where it is now with --teacher, or draw another figure.",
            ) from error

    def _animate(self, request: Request, path: Path, console: Console) -> None:
        pictures = trace_photographs(request.student, request.photographs, view=self.view, longest=request.longest)
        seconds = glide(pictures[0].rois).seconds
        frames = draw_frames(pictures, side=self.size or ANIMATED_SIDE, columns=self.columns)
        hidden = not console.is_terminal
        bar = track(frames, "drawing", total=len(seconds), console=console, transient=True, disable=hidden)
        save_animation(bar, seconds, path)

    def _tell(self, photographs: Photographs, console: Console) -> None:
        """What was written, and what was left out.

        Raises:
            DataError: naming the images that could not be read.
        """
        written = [str(path) for path in (self.out, self.animate) if path is not None]
        skipped = photographs.skipped.state_dict()
        if self.json:
            print_json({"drawn": photographs.drawn, "written": written, "skipped": dict(skipped)})
        images = f"{photographs.drawn} image{'' if photographs.drawn == 1 else 's'}"
        console.print(f"{images} drawn to {' and '.join(written)}", highlight=False, markup=False, soft_wrap=True)
        if skipped:
            named = shorten(f"{path} ({reason})" for path, reason in skipped)
            raise DataError(
                f"{len(skipped)} of {len(photographs.paths)} images cannot be read: {named}.", "The others are drawn."
            )


def short_name(model: str) -> str:
    """What to call a model on a sheet: its run folder, its file, or its own name."""
    path = Path(model)
    if path.name == MODEL_FILE:
        return path.absolute().parent.name
    return path.absolute().name if path.is_dir() else path.stem if path.is_file() else model
