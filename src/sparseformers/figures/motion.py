"""RoIs that move from stage to stage: a panel for each focusing iteration (the paper's Figures 1 and 2), and frames of a film."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from sparseformers.errors import ConfigError
from sparseformers.figures.data import RoIPicture
from sparseformers.figures.output import Frame
from sparseformers.figures.panels import draw_paths, draw_stage, token_colours
from sparseformers.figures.sheet import LONGEST_SIDE, check_count, open_sheet
from sparseformers.rois import centre_and_size, from_centre_and_size

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

FRAMES_PER_MOVE = 10  # from one stage to the next
MOVING, PAUSE, LAST_PAUSE = 0.08, 0.9, 2.0  # seconds that a frame is shown: on the way, at a stage, at the last one
SMALLEST_SIZE = 1e-6  # the smallest size of a RoI whose logarithm is taken


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
            share = eased(step / frames_per_move)
            centre, log_size = (torch.lerp(part[stage - 1], part[stage], share) for part in (centres, log_sizes))
            frames.append(from_centre_and_size(centre, log_size.exp()))
        frames.append(rois[stage].float())
        stages += [stage] * frames_per_move
        seconds += [*[MOVING] * (frames_per_move - 1), PAUSE]
    seconds[-1] = LAST_PAUSE
    return Glide(torch.stack(frames), tuple(stages), tuple(seconds))


def eased(share: float) -> float:
    """The share of a move that is done after a share of its time: slow at both ends (3 t² - 2 t³)."""
    return share * share * (3 - 2 * share)


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
    canvas = cast("FigureCanvasAgg", figure.canvas)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    # Video codecs halve the resolution of colours, so both sides have to be even.
    return np.ascontiguousarray(pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2])
