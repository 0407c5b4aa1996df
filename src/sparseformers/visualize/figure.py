"""Figures: where a student looks, and how its training went. Made without pyplot, so without a display or global state."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparseformers.errors import ConfigError, RunError
from sparseformers.visualize.colours import token_colours
from sparseformers.visualize.data import FocusPicture, coverage, inside_rois
from sparseformers.visualize.panels import draw_photograph, draw_points, draw_rois
from sparseformers.visualize.sheet import check_count, empty_figure, open_sheet

FORMATS = {".png": "png", ".pdf": "pdf", ".svg": "svg", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}
"""Formats of figures by the suffix of their file."""
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def draw_focus(pictures: Sequence[FocusPicture], *, stages: Sequence[int] | None = None, columns: int | None = None) -> Figure:
    """A row of panels for each picture: the input, the RoIs at some stages, the sampling points of the last look.

    A token keeps its colour in all panels. A picture is dark and grey where no RoI (or no sampling point) is.

    Args:
        pictures: 1 to 64, all of the same student.
        stages: of which to draw the RoIs: 0 for the start, i for after the i-th iteration, -1 for the last; by default
            the first, third and last of them (each once, if there are fewer).
        columns: pictures side by side; by default as many as make the sheet about square.

    Raises:
        ConfigError: for no picture or more than 64, a stage that there is not, or less than one column.
        ValueError: if the pictures differ in their numbers of stages or tokens.
    """
    check_count(len(pictures))
    stage_count, tokens, _ = pictures[0].rois.shape
    if any(picture.rois.shape != pictures[0].rois.shape for picture in pictures):
        raise ValueError("the pictures on a sheet must have the same numbers of stages and tokens")
    shown = choose_stages(stage_count, stages)
    titles = ["Input", *(f"RoIs, {stage_name(stage, stage_count)}" for stage in shown), "Sampling points, last stage"]
    figure, rows = open_sheet(
        [picture.image for picture in pictures], [picture.title for picture in pictures], titles, columns=columns
    )
    colours = token_colours(tokens)
    for picture, panels in zip(pictures, rows, strict=True):
        height, width = picture.image.shape[-2:]
        draw_photograph(panels[0], picture.image)
        for axes, stage in zip(panels[1:-1], shown, strict=True):
            rois = picture.rois[stage]
            draw_photograph(axes, picture.image, inside_rois(rois, height=height, width=width))
            draw_rois(axes, rois, colours, width=width, height=height)
        draw_photograph(panels[-1], picture.image, coverage(picture, height=height, width=width))
        draw_points(panels[-1], picture.points[-1], colours, width=width, height=height)
    return figure


def choose_stages(count: int, stages: Sequence[int] | None = None) -> list[int]:
    """Which of ``count`` stages to draw, each once: those asked for, or the first, third and last.

    Raises:
        ConfigError: for a stage that there is not.
    """
    wanted = [0, min(2, count - 1), count - 1] if stages is None else list(stages)
    for stage in wanted:
        if not -count <= stage < count:
            raise ConfigError(
                f"There is no stage {stage}: the student has {count}.",
                f"Choose from 0 (the start) to {count - 1} (the last); -1 is the last, too.",
            )
    return list(dict.fromkeys(stage % count for stage in wanted))


def stage_name(stage: int, count: int) -> str:
    """``first stage``, ``last stage``, ``stage 12`` ...; the start is the first."""
    if stage == count - 1 and count > 1:
        return "last stage"
    return f"{ORDINALS[stage]} stage" if stage < len(ORDINALS) else f"stage {stage + 1}"


def save_figure(figure: Figure, path: Path, *, dpi: float = 150) -> None:
    """Writes a figure under a temporary name, then renames it: a figure that is there is whole.

    Args:
        figure: any.
        path: with the suffix .png, .pdf, .svg, .jpg, .jpeg or .webp; missing folders are made, an old file is replaced.
        dpi: pixels per inch.

    Raises:
        ConfigError: for another suffix.
        RunError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"Figures cannot be written as '{path.suffix or path.name}'.", f"Use one of: {', '.join(FORMATS)}.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format=FORMATS[path.suffix.lower()], dpi=dpi)
        temporary.replace(path)
    # Pillow says ValueError where a picture has more pixels than its format can hold.
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise RunError(
            f"The figure '{path}' cannot be written ({reason}).",
            "Choose a place where you may write, or another format for a very large figure.",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def curves_figure(
    history: Sequence[Mapping[str, Any]],
    *,
    samples: str = "samples",
    loss: str = "loss",
    held_out: str = "centred_cosine",
) -> Figure:
    """The loss and the held-out centred cosine over the training images seen, in two panels.

    Args:
        history: records in their order, such as the lines of ``metrics.jsonl``; a record may lack either figure (or hold
            None) and may have other keys, and what is not finite is left out.
        samples: the key of the number of training images seen so far; records without it are left out.
        loss: the key of the loss.
        held_out: the key of the held-out centred cosine.
    """
    figure = empty_figure(8.4, 3.0)
    left, right = figure.add_axes((0.07, 0.16, 0.4, 0.72)), figure.add_axes((0.565, 0.16, 0.4, 0.72))
    _draw_curve(left, *_series(history, samples, loss), title="Loss", colour="#0072b2", smooth=True)
    _draw_curve(right, *_series(history, samples, held_out), title="Held-out centred cosine", colour="#d55e00", smooth=False)
    right.axhline(0, color="#909090", linewidth=0.8, linestyle=":")
    return figure


def _series(history: Sequence[Mapping[str, Any]], samples: str, key: str) -> tuple[list[float], list[float]]:
    """The records that have both numbers, as two lists."""
    pairs = [(record.get(samples), record.get(key)) for record in history]
    finite = [(float(seen), float(value)) for seen, value in pairs if seen is not None and value is not None]
    finite = [pair for pair in finite if all(map(math.isfinite, pair))]
    return [seen for seen, _ in finite], [value for _, value in finite]


def _draw_curve(axes: Axes, seen: list[float], values: list[float], *, title: str, colour: str, smooth: bool) -> None:
    """A line over the training images seen; a noisy one is faint, with its running mean on top."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("training images seen", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    if not values:
        axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", va="center", color="#707070")
        return
    window = len(values) // 20
    noisy = smooth and window >= 2
    axes.plot(seen, values, color=colour, linewidth=0.8 if noisy else 1.6, alpha=0.35 if noisy else 1.0)
    if noisy:
        window += 1 - window % 2  # an odd one, for a mean without lag
        mean = np.convolve(values, np.full(window, 1 / window), mode="valid").tolist()
        seen, values = seen[window // 2 : -(window // 2)], mean
        axes.plot(seen, values, color=colour, linewidth=1.6)
    axes.plot(seen[-1:], values[-1:], "o", color=colour, markersize=4)
    axes.annotate(f"{values[-1]:.3f}", (seen[-1], values[-1]), xytext=(0, 6), textcoords="offset points", ha="right", fontsize=8)
