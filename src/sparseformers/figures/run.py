"""``visualize``: from models and photographs to the files of a figure or an animation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure
from torch import nn

from sparseformers.config import GridConfig
from sparseformers.data import SkippedImages, UnreadableImageError, read_image
from sparseformers.data.places import find, no_images
from sparseformers.errors import ConfigError, DataError
from sparseformers.evaluation.embeddings import Progress, silent
from sparseformers.evaluation.report import Report
from sparseformers.figures.data import LONGEST_DRAWN, TitledImage, ViewKind, trace_photographs
from sparseformers.figures.map import draw_density, draw_map, mapping_front, trace_density, trace_map
from sparseformers.figures.output import WRITERS, check_animation, check_target, save_animation, save_figure
from sparseformers.figures.pca import draw_pca, trace_pca
from sparseformers.figures.sheet import LARGEST_SHEET, LONGEST_SIDE
from sparseformers.figures.stages import draw_frames, draw_iterations, draw_models, glide, trace_models
from sparseformers.figures.tokens import draw_tokens, trace_tokens
from sparseformers.opening import GivenTeacher, Model, SavedModel, model_name, open_student, open_teacher
from sparseformers.processes import process_state
from sparseformers.saving import MODEL_FILE

FigureName = Literal["models", "iterations", "map", "density", "tokens", "pca"]
WITH_TEACHER: frozenset[FigureName] = frozenset({"map", "density", "pca"})  # figures that show the teacher beside the student
ANIMATED_SIDE, DRAWN_SIDE = 320, 375  # pixels along the longer side of a photograph, by default


@dataclass(frozen=True)
class Visualization(Report):
    """Result of :func:`visualize`."""

    drawn: int  # number of images on the figure
    written: tuple[str, ...]
    skipped: dict[str, str]  # images that could not be read, with the reason of each


class ReadablePhotographs:
    """Photographs, read one after the other; those that cannot be read are noted and left out."""

    def __init__(self, paths: Sequence[Path], progress: Progress) -> None:
        self.paths, self.skipped, self._progress = paths, SkippedImages(), progress

    @property
    def drawn(self) -> int:
        """The number of those that could be read, once they were."""
        return len(self.paths) - len(self.skipped)

    def __iter__(self) -> Iterator[TitledImage]:
        """Title and image of each; raises DataError at the end if not one can be read."""
        reason = ""
        with self._progress("images", len(self.paths), doing="reading") as advance:
            for path in self.paths:
                try:
                    yield path.name, read_image(path)
                except UnreadableImageError as error:
                    reason = error.reason
                    self.skipped.add(path, reason)
                advance(1)
        if not self.drawn:
            raise DataError(f"None of the {len(self.paths)} images can be read: {reason}.", "Name others.")


def visualize(
    model: Model,
    images: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    figure: FigureName = "models",
    animate: str | Path | None = None,
    beside: Sequence[Model] = (),
    view: ViewKind = "whole",
    stages: Sequence[int] | None = None,
    count: int = 8,
    teacher: GivenTeacher | None = None,
    columns: int | None = None,
    size: int | None = None,
    progress: Progress | None = None,
) -> Visualization:
    """Draws regions of interest (RoIs) and sampling points of students on photographs, as the command ``visualize`` does.

    ``model`` and those ``beside`` it (figure models) are students, or where they are; ``images`` are at most 64, or folders of
    them. A figure goes to ``out`` (.png, .pdf, .svg, .jpg or .webp), RoIs gliding through the iterations to ``animate`` (.gif,
    .webp or .mp4). ``view`` is all of a photograph in its own shape (whole), or the student's view as when it embeds (own);
    ``stages`` those of which to draw RoIs (figure models), 0 for the start, -1 for the last; ``count`` the tokens of the figure
    tokens; ``teacher`` a teacher, or where to load it from if not from where it was (figures map, density and pca); ``columns``
    photographs side by side, by default for a sheet about square; ``size`` pixels along the longer side of a panel, by default
    375, and 320 in an animation. Raises SparseFormersError for options that do not go together, a file that cannot be written, a
    model or a teacher that cannot be had, or if not one image can be read.
    """
    out, animate = (None if path is None else Path(path) for path in (out, animate))
    _check_options(out, animate, figure, {"beside": beside, "stages": stages, "teacher": teacher}, size)
    photographs = _photographs(images, progress or silent)
    _check_targets(out, animate, photographs.paths)
    models = _open_models(model, beside)
    saved = next(iter(models.values()))
    if animate is not None and isinstance(saved.student.config.focusing, GridConfig):
        raise ConfigError("The RoIs of this model stay where they are: there is nothing to animate.", "Draw a figure instead.")
    if out is not None and figure == "map":
        mapping_front(saved.student)
    seen: dict[str, Any] = {"view": view, "longest": max(size or DRAWN_SIDE, LONGEST_DRAWN)}
    if out is not None:
        if figure == "models":
            students = {name: each.student for name, each in models.items()}
            sheet = draw_models(trace_models(students, photographs, **seen), stages=stages, columns=columns)
        else:
            networks: list[nn.Module] = [saved.student]
            if figure in WITH_TEACHER:
                networks.append(open_teacher(saved, teacher, name=model_name(model)).to(process_state().device))
            trace, draw = FIGURES[figure]
            further = {"count": count} if figure == "tokens" else {}
            sheet = draw(trace(*networks, photographs, **seen, **further), columns=columns)
        save_figure(sheet, out, dpi=(size or DRAWN_SIDE) / LONGEST_SIDE)
    if animate is not None:
        pictures = trace_photographs(saved.student, photographs, **seen)
        seconds = glide(pictures[0].rois).seconds
        with (progress or silent)("frames", len(seconds), unit="frames", doing="drawing") as advance:
            frames = draw_frames(pictures, side=size or ANIMATED_SIDE, columns=columns, on_frame=lambda: advance(1))
            save_animation(frames, seconds, animate)
    written = tuple(str(path) for path in (out, animate) if path is not None)
    return Visualization(photographs.drawn, written, dict(photographs.skipped.state_dict()))


def _check_options(out: Path | None, animate: Path | None, figure: str, given: Mapping[str, object], size: int | None) -> None:
    if figure not in FIGURES:
        raise ConfigError(f"There is no figure '{figure}'.", f"Choose from {', '.join(FIGURES)}.")
    if out is None and animate is None:
        raise ConfigError("There is nothing to write.", "Name a file with --out or --animate.")
    if out is not None and out == animate:
        raise ConfigError("--out and --animate cannot be the same file.", "Name two, or leave one of them out.")
    for option, value in given.items():
        figures = WITH_TEACHER if option == "teacher" else {"models"}
        if value and figure not in figures:
            names = " or ".join(sorted(figures))
            raise ConfigError(f"--{option} goes with --figure {names}, not with {figure}.", f"Leave out --{option}.")
    if size is not None and not 32 <= size <= 4096:
        raise ConfigError(f"A panel cannot have a --size of {size} pixels.", "Choose from 32 to 4096.")


def _photographs(images: str | Path | Sequence[str | Path], progress: Progress) -> ReadablePhotographs:
    places = [Path(place) for place in ([images] if isinstance(images, str | Path) else images)]
    if not places:
        raise ConfigError("No image was named.", "Name image files, or folders of them, after the model.")
    found = find(places)
    if not found.images:
        raise no_images(places, found)
    # Entries that cannot be read are noted when their turn comes, as damaged images are.
    paths = [*found.images, *(Path(name) for name, _ in found.faults)]
    if len(paths) > LARGEST_SHEET:
        raise ConfigError(f"A sheet takes at most {LARGEST_SHEET} images, not {len(paths)}.", "Name fewer of them.")
    return ReadablePhotographs(paths, progress)


def _check_targets(out: Path | None, animate: Path | None, images: Sequence[Path]) -> None:
    for target in (out, animate):
        if target is not None and any(target.absolute() == path.absolute() for path in images):
            raise ConfigError(f"'{target}' is one of the images to draw.", "Write to another file.")
    if out is not None:
        check_target(out)
    if animate is not None:
        check_animation(animate)
        check_target(animate, WRITERS)


def _open_models(model: Model, beside: Sequence[Model]) -> dict[str, SavedModel]:
    models: dict[str, SavedModel] = {}
    for each in (model, *beside):
        name = model_name(each)
        short = name if short_name(name) in models else short_name(name)
        if short in models:
            raise ConfigError(f"The model '{name}' is named twice.", "Name each of them once.")
        models[short] = open_student(each)
        models[short].student.to(process_state().device)
    return models


def short_name(model: str) -> str:
    """The name of a model on a sheet: its run folder, its file, or its own name."""
    path = Path(model)
    if path.name == MODEL_FILE:
        return path.absolute().parent.name
    return path.absolute().name if path.is_dir() else path.stem if path.is_file() else model


FIGURES: Mapping[FigureName, tuple[Callable[..., Any], Callable[..., Figure]]] = {
    "models": (trace_models, draw_models),
    "iterations": (trace_photographs, draw_iterations),
    "map": (trace_map, draw_map),
    "density": (trace_density, draw_density),
    "tokens": (trace_tokens, draw_tokens),
    "pca": (trace_pca, draw_pca),
}  # the functions that give the data of a figure, and draw it; all but models of one student, and its teacher where it shows it
