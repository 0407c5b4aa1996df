"""The figures of ``sparseformers visualize``: what each of them traces and draws, in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from sparseformers.data import SkippedImages, UnreadableImageError, read_image
from sparseformers.errors import DataError
from sparseformers.figures import (
    draw_density,
    draw_iterations,
    draw_models,
    draw_pca,
    draw_tokens,
    trace_density_on_photographs,
    trace_models,
    trace_pca_on_photographs,
    trace_photographs,
    trace_tokens_on_photographs,
)
from sparseformers.figures.views import LONGEST_DRAWN, Photograph, ViewKind
from sparseformers.integrations.hub import SparseFormer
from sparseformers.teachers import Teacher

FigureName = Literal["models", "iterations", "density", "tokens", "pca"]


class Photographs:
    """The photographs of a command line, read one after the other; those that cannot be read are noted and left out.

    Args:
        paths: of the files, at least one.
        console: for a bar over them, where it is a terminal.
    """

    def __init__(self, paths: Sequence[Path], console: Console) -> None:
        self.paths = paths
        self.skipped = SkippedImages()
        self._console = console

    @property
    def drawn(self) -> int:
        """How many could be read, once they were."""
        return len(self.paths) - len(self.skipped)

    def __iter__(self) -> Iterator[Photograph]:
        """Title and image of each.

        Raises:
            DataError: at the end, if not one can be read.
        """
        hidden, reason = not self._console.is_terminal, ""
        for path in track(self.paths, "looking", console=self._console, transient=True, disable=hidden):
            try:
                image = read_image(path)
            except UnreadableImageError as error:
                self.skipped.add(path, error.reason)
                reason = error.reason
                continue
            yield path.name, image
        if not self.drawn:
            raise DataError(f"None of the {len(self.paths)} images can be read: {reason}.", "Name others.")


@dataclass(frozen=True)
class Request:
    """What a figure is drawn from."""

    models: Mapping[str, SparseFormer]
    """By the names that stand on the sheet; the first is RUN."""
    photographs: Photographs
    """What to look at."""
    view: ViewKind
    """What a student is given of a photograph."""
    teacher: Teacher | None
    """That of RUN, where the figure needs it."""
    stages: Sequence[int] | None
    """Of which to draw the RoIs."""
    count: int
    """How many tokens to show."""
    columns: int | None
    """Photographs side by side."""
    side: int
    """Pixels along the longer side of a panel."""

    @property
    def student(self) -> SparseFormer:
        """That of RUN."""
        return next(iter(self.models.values()))

    @property
    def known_teacher(self) -> Teacher:
        """The teacher, of a figure in ``OF_TEACHERS``."""
        assert self.teacher is not None
        return self.teacher

    @property
    def longest(self) -> int:
        """Pixels along the longer side of a photograph as it is drawn, at most."""
        return max(self.side, LONGEST_DRAWN)


def _models(request: Request) -> Figure:
    pictures = trace_models(request.models, request.photographs, view=request.view, longest=request.longest)
    return draw_models(pictures, stages=request.stages, columns=request.columns)


def _iterations(request: Request) -> Figure:
    pictures = trace_photographs(request.student, request.photographs, view=request.view, longest=request.longest)
    return draw_iterations(pictures, columns=request.columns)


def _density(request: Request) -> Figure:
    pictures = trace_density_on_photographs(
        request.student, request.known_teacher, request.photographs, view=request.view, longest=request.longest
    )
    return draw_density(pictures, columns=request.columns)


def _tokens(request: Request) -> Figure:
    pictures = trace_tokens_on_photographs(
        request.student, request.photographs, count=request.count, view=request.view, longest=request.longest
    )
    return draw_tokens(pictures, columns=request.columns)


def _pca(request: Request) -> Figure:
    pictures = trace_pca_on_photographs(
        request.student, request.known_teacher, request.photographs, view=request.view, longest=request.longest
    )
    return draw_pca(pictures, columns=request.columns)


FIGURES: Mapping[FigureName, Callable[[Request], Figure]] = {
    "models": _models,
    "iterations": _iterations,
    "density": _density,
    "tokens": _tokens,
    "pca": _pca,
}
"""What draws a figure, by its name."""
OF_TEACHERS: frozenset[FigureName] = frozenset({"density", "pca"})
"""Figures that show the teacher beside the student."""
