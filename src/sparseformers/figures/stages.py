"""RoIs stage by stage: of one or several models (the papers' Figures 3 and 4), at each iteration (1 and 2), and as a film."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from sparseformers.errors import ConfigError
from sparseformers.figures.data import (
    LONGEST_DRAWN,
    Photographs,
    RoIPicture,
    ViewKind,
    drawn_pixels,
    inside_rois,
    trace_photograph,
)
from sparseformers.figures.output import Frame
from sparseformers.figures.panels import draw_last_points, draw_paths, draw_photograph, draw_stage, token_colours
from sparseformers.figures.sheet import LONGEST_SIDE, check_count, open_sheet
from sparseformers.model.sparseformer import SparseFormer
from sparseformers.rois import centre_and_size, from_centre_and_size

FRAMES_PER_MOVE = 10  # from one stage to the next
MOVING, PAUSE, LAST_PAUSE = 0.08, 0.9, 2.0  # seconds that a frame is shown: on the way, at a stage, at the last one
SMALLEST_SIZE = 1e-6  # the smallest size of a RoI whose logarithm is taken


@dataclass(frozen=True, eq=False)
class ModelsPicture:
    """A photograph with the RoIs and sampling points of each of several models; raises ValueError for none."""

    image: Tensor  # 3 x H x W in [0, 1]: the photograph as it is drawn
    title: str
    models: Mapping[str, RoIPicture]  # by the model's name, all in the coordinates of ``image``

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("a picture needs at least one model")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """S x N x 4 of each model, in which pictures on one sheet agree."""
        return {name: tuple(of_model.rois.shape) for name, of_model in self.models.items()}


def trace_models(
    models: Mapping[str, SparseFormer], photographs: Photographs, *, view: ViewKind = "whole", longest: int = LONGEST_DRAWN
) -> list[ModelsPicture]:
    """Runs several models on photographs, each on its own view of them, at its own size; all in the photograph's coordinates."""
    pictures = []
    for title, image in photographs:
        drawn = drawn_pixels(image, longest)
        traced = {name: trace_photograph(student, image, drawn, title, view=view) for name, student in models.items()}
        pictures.append(ModelsPicture(drawn, title, traced))
    return pictures


def draw_models(pictures: Sequence[ModelsPicture], *, stages: Sequence[int] | None = None, columns: int | None = None) -> Figure:
    """A row of panels for each picture: the input, then for each model the RoIs at some stages and the last sampling points.

    A token keeps its colour in all panels of its model. A picture is dark and grey where no RoI (or sampling point) is, and where
    it is not given to the model. ``stages`` are 0 for the start, i for after the i-th iteration, -1 for the last; by default the
    first, third and last. Raises ConfigError for no picture or more than 64, a stage that a model does not have, or less than one
    column, and ValueError if the pictures differ in their models, or a model's numbers of stages or tokens.
    """
    check_count(len(pictures))
    shapes = pictures[0].shapes
    if any(picture.shapes != shapes for picture in pictures):
        raise ValueError("the pictures on a sheet must have the same models with the same numbers of stages and tokens")
    shown = {name: choose_stages(shape[0], stages) for name, shape in shapes.items()}
    headings = ["Input"]
    for name, chosen in shown.items():
        headings += [*(f"RoIs, {stage_name(pictures[0].models[name], stage)}" for stage in chosen), "Sampling points, last stage"]
    groups = [(name, len(chosen) + 1) for name, chosen in shown.items()] if len(shown) > 1 else []
    images, titles = [picture.image for picture in pictures], [picture.title for picture in pictures]
    figure, rows = open_sheet(images, titles, headings, columns=columns, groups=groups)
    for picture, panels in zip(pictures, rows, strict=True):
        # Bright is what at least one model was given.
        height, width = picture.image.shape[-2:]
        frames = torch.tensor([of_model.frame for of_model in picture.models.values()])
        first, *others = panels
        draw_photograph(first, picture.image, inside_rois(frames, height=height, width=width))
        places = iter(others)
        for name, of_model in picture.models.items():
            colours = token_colours(of_model.rois.shape[1])
            for stage in shown[name]:
                draw_stage(next(places), of_model, of_model.rois[stage], colours)
            draw_last_points(next(places), of_model, colours)
    return figure


def draw_student(pictures: Sequence[RoIPicture], *, stages: Sequence[int] | None = None, columns: int | None = None) -> Figure:
    """As :func:`draw_models` for one student."""
    of_one = [ModelsPicture(picture.image, picture.title, {"": picture}) for picture in pictures]
    return draw_models(of_one, stages=stages, columns=columns)


ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def choose_stages(count: int, stages: Sequence[int] | None = None) -> list[int]:
    """Stages to draw, of ``count``, each once: those asked for, or the first, third and last; raises ConfigError for others."""
    wanted = [0, min(2, count - 1), count - 1] if stages is None else list(stages)
    for stage in wanted:
        if not -count <= stage < count:
            problem = f"There is no stage {stage}: the student has {count}."
            raise ConfigError(problem, f"Choose from 0 (the start) to {count - 1} (the last); -1 is the last, too.")
    return list(dict.fromkeys(stage % count for stage in wanted))


def stage_name(picture: RoIPicture, stage: int) -> str:
    """``first stage``, ``last stage``, ``stage 12`` ...; ``the only stage`` where nothing moves, and its own where RoIs split."""
    count = len(picture.rois)
    if picture.attention_map is not None:
        return picture.stage_names[stage]
    if count == 1:
        return "the only stage"
    if stage == count - 1:
        return "last stage"
    return f"{ORDINALS[stage]} stage" if stage < len(ORDINALS) else f"stage {stage + 1}"


def centre_paths(rois: Tensor) -> Tensor:
    """The way of each RoI's centre (RoIs S x N x 4): (S-1) x N x 2 x 2, the centre (x, y) before and after each iteration."""
    centres, _ = centre_and_size(rois)  # S x N x 2
    return torch.stack([centres[:-1], centres[1:]], dim=2)


def draw_iterations(pictures: Sequence[RoIPicture], *, columns: int | None = None) -> Figure:
    """A panel for the start and each iteration: RoIs, and faintly the way of each centre; raises as :func:`draw_models`."""
    check_count(len(pictures))
    tokens = pictures[0].rois.shape[1]
    if any(picture.rois.shape != pictures[0].rois.shape for picture in pictures):
        raise ValueError("the pictures on a sheet must have the same numbers of stages and tokens")
    images, titles = [picture.image for picture in pictures], [picture.title for picture in pictures]
    figure, rows = open_sheet(images, titles, [name.capitalize() for name in pictures[0].stage_names], columns=columns)
    colours = token_colours(tokens)
    for picture, panels in zip(pictures, rows, strict=True):
        height, width = picture.image.shape[-2:]
        paths = centre_paths(picture.rois)
        for stage, axes in enumerate(panels):
            draw_stage(axes, picture, picture.rois[stage], colours)
            if stage:
                before, after = paths[stage - 1].unbind(dim=1)
                draw_paths(axes, before, after, colours, width=width, height=height)
    return figure


@dataclass(frozen=True, eq=False)
class Glide:
    """RoIs in each frame of an animation."""

    rois: Tensor  # T x N x 4; at each stage exactly the student's
    stages: tuple[int, ...]  # for each frame, the stage that it shows or is on the way to
    seconds: tuple[float, ...]  # for each frame, how long it is shown


def glide(rois: Tensor, *, frames_per_move: int = FRAMES_PER_MOVE) -> Glide:
    """Interpolates RoIs (S x N x 4) from stage to stage, starting and ending each move slowly, with a pause at each stage.
    Centres move on straight lines, sizes change by equal factors. Gives 1 + (S-1) * frames_per_move frames. Raises ConfigError if
    there is one stage only.
    """
    if frames_per_move < 1:
        raise ValueError(f"a move needs at least one frame, not {frames_per_move}")
    if len(rois) < 2:
        raise ConfigError("The RoIs of this model stay where they are: there is nothing to animate.", "Draw a figure instead.")
    centres, sizes = centre_and_size(rois)
    log_sizes = sizes.clamp_min(SMALLEST_SIZE).log()
    frames, stages, seconds = [rois[0].float()], [0], [PAUSE]
    for stage in range(1, len(rois)):
        for step in range(1, frames_per_move):
            time = step / frames_per_move
            share = time * time * (3 - 2 * time)  # slow at both ends
            centre, log_size = (torch.lerp(part[stage - 1], part[stage], share) for part in (centres, log_sizes))
            frames.append(from_centre_and_size(centre, log_size.exp()))
        frames.append(rois[stage].float())
        stages += [stage] * frames_per_move
        seconds += [*[MOVING] * (frames_per_move - 1), PAUSE]
    seconds[-1] = LAST_PAUSE
    return Glide(torch.stack(frames), tuple(stages), tuple(seconds))


def draw_frames(
    pictures: Sequence[RoIPicture],
    *,
    side: int = 320,
    columns: int | None = None,
    frames_per_move: int = FRAMES_PER_MOVE,
    on_frame: Callable[[], None] = lambda: None,
) -> Iterator[Frame]:
    """Draws an animation's frames one by one, ``side`` pixels a photograph; raises as :func:`glide` and as all sheets."""
    check_count(len(pictures))
    if any(picture.rois.shape != pictures[0].rois.shape for picture in pictures):
        raise ValueError("the pictures of an animation must have the same numbers of stages and tokens")
    glides = [glide(picture.rois, frames_per_move=frames_per_move) for picture in pictures]
    for frame in range(len(glides[0].stages)):
        yield _draw_frame(pictures, glides, frame, side=side, columns=columns)
        on_frame()


def _draw_frame(pictures: Sequence[RoIPicture], glides: Sequence[Glide], frame: int, *, side: int, columns: int | None) -> Frame:
    """One frame; each is drawn anew, so that no frame depends on another."""
    images, titles = [picture.image for picture in pictures], [picture.title for picture in pictures]
    heading = pictures[0].stage_names[glides[0].stages[frame]].capitalize()
    figure, rows = open_sheet(images, titles, [heading], columns=columns)
    colours = token_colours(pictures[0].rois.shape[1])
    for picture, (axes,), gliding in zip(pictures, rows, glides, strict=True):
        draw_stage(axes, picture, gliding.rois[frame], colours)
    figure.set_dpi(side / LONGEST_SIDE)
    canvas = cast(FigureCanvasAgg, figure.canvas)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    # Video codecs halve the resolution of colours, so both sides have to be even.
    return np.ascontiguousarray(pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2])
