"""What is in a panel: the photograph, boxes and points, in the photograph's own pixels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from sparseformers.figures.colours import HALO
from sparseformers.rois import centre_and_size

Array = npt.NDArray[np.float64]

MARGIN = 0.04
"""Room around the photograph for what lies outside of it, as a share of its longer side."""
DIM = 0.3
"""Brightness of the (grey) photograph where nothing looks."""
PATH_ALPHA = 0.75
"""Of the line from where a centre was."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


def margin(width: int, height: int) -> float:
    """Room around a photograph of that size, in its pixels."""
    return MARGIN * max(width, height)


def draw_photograph(axes: Axes, image: Tensor, bright: Tensor | None = None) -> None:
    """The photograph in pixel coordinates, with a margin around it.

    Args:
        axes: empty ones.
        image: 3 x H x W in [0, 1].
        bright: H x W in [0, 1], where the photograph keeps its colours; where it is 0 the photograph is dark and grey.
    """
    pixels = image.clamp(0, 1).permute(1, 2, 0)
    if bright is not None:
        grey = (pixels * pixels.new_tensor(LUMA)).sum(dim=-1, keepdim=True)
        pixels = DIM * grey + bright.unsqueeze(-1) * (pixels - DIM * grey)
    height, width = image.shape[-2:]
    room = margin(width, height)
    axes.imshow(pixels.numpy(), extent=(0, width, height, 0), interpolation="antialiased")
    axes.add_patch(Rectangle((0, 0), width, height, fill=False, edgecolor="#b8b8b8", linewidth=0.4, zorder=1.5))
    axes.set_xlim(-room, width + room)
    axes.set_ylim(height + room, -room)
    axes.set_axis_off()


def draw_rois(axes: Axes, rois: Tensor, colours: Array, *, width: int, height: int) -> None:
    """A box with a dot at its centre for each token; the boxes are thin and translucent where many overlap.

    Args:
        axes: with the photograph.
        rois: N x 4 in [0, 1] of the photograph; what reaches farther than the margin is drawn at the margin.
        colours: N x 3.
        width: of the photograph, in pixels.
        height: of the photograph, in pixels.
    """
    centre, size = (part.double().numpy() for part in centre_and_size(rois))
    near, far = _on_panel(centre - size / 2, width, height), _on_panel(centre + size / 2, width, height)
    corners = np.stack([near, np.stack([far[:, 0], near[:, 1]], 1), far, np.stack([near[:, 0], far[:, 1]], 1)], axis=1)
    # Boxes over a pixel on average: from 12 (half-image boxes of 48 tokens) to less than 1.
    depth = float(np.nan_to_num(np.prod(far - near, axis=1)).sum()) / (width * height)
    crowded = min(1.0, math.sqrt(depth / 12))
    order = np.argsort(-np.prod(size, axis=1), kind="stable")  # small boxes on top of large ones
    line = 1.3 - 0.3 * crowded
    boxes = PolyCollection(list(corners[order]), facecolors="none", edgecolors=colours[order], linewidths=line, gid="rois")
    boxes.set_alpha(1 - 0.1 * crowded)
    boxes.set_path_effects([withStroke(linewidth=line + 0.9 - 0.2 * crowded, foreground=HALO, alpha=0.7 - 0.1 * crowded)])
    boxes.set_zorder(2)
    axes.add_collection(boxes, autolim=False)
    _draw_dots(axes, _on_panel(centre, width, height), colours, size=9.0, name="centres")


def draw_numbers(axes: Axes, rois: Tensor, colours: Array, *, width: int, height: int) -> None:
    """The RoIs' numbers from 1 at their centres, dark on labels of their colours.

    Args:
        axes: with the photograph.
        rois: N x 4 in [0, 1] of the photograph; centres farther out than the margin are marked at the margin.
        colours: N x 3.
        width: of the photograph, in pixels.
        height: of the photograph, in pixels.
    """
    centres = _on_panel(centre_and_size(rois)[0].double().numpy(), width, height)
    for number, ((x, y), colour) in enumerate(zip(centres, colours, strict=True), start=1):
        if np.isfinite([x, y]).all():
            label = {"boxstyle": "round,pad=0.15", "facecolor": colour, "edgecolor": HALO, "linewidth": 0.4}
            axes.text(x, y, str(number), fontsize=6.5, color=HALO, ha="center", va="center", bbox=label, zorder=4)


def draw_paths(axes: Axes, before: Tensor, after: Tensor, colours: Array, *, width: int, height: int) -> None:
    """A faint line for each token, from where its centre was to where it is.

    Args:
        axes: with the photograph.
        before: N x 2, centres in [0, 1] of the photograph.
        after: N x 2, the same a stage later.
        colours: N x 3.
        width: of the photograph, in pixels.
        height: of the photograph, in pixels.
    """
    ends = [_on_panel(centres.double().numpy(), width, height) for centres in (before, after)]
    paths = LineCollection(list(np.stack(ends, axis=1)), colors=colours, linewidths=1.0, capstyle="round", gid="paths")
    paths.set_alpha(PATH_ALPHA)
    paths.set_path_effects([withStroke(linewidth=2.0, foreground=HALO, alpha=0.35)])
    paths.set_zorder(2.5)
    axes.add_collection(paths, autolim=False)


def draw_points(axes: Axes, points: Tensor, colours: Array, *, width: int, height: int) -> None:
    """A dot for each sampling point, in the colour of its token.

    Args:
        axes: with the photograph.
        points: N x P x 2 in [0, 1] of the photograph; those farther out than the margin are drawn at the margin.
        colours: N x 3.
        width: of the photograph, in pixels.
        height: of the photograph, in pixels.
    """
    places = _on_panel(points.double().flatten(0, 1).numpy(), width, height)
    _draw_dots(axes, places, colours.repeat(points.shape[1], axis=0), size=3.4, name="points")


def _draw_dots(axes: Axes, places: Array, colours: Array, *, size: float, name: str) -> None:
    across, down = places.T
    axes.scatter(across, down, s=size, c=colours, edgecolors=HALO, linewidths=0.5, zorder=3, gid=name, plotnonfinite=False)


def _on_panel(places: Array, width: int, height: int) -> Array:
    """Points (... x 2) in [0, 1] to pixels; what is beyond the margin comes to lie just inside of it, to stay visible."""
    room = 0.7 * margin(width, height)
    scale = np.array([width, height], dtype=np.float64)
    return np.clip(places * scale, -room, scale + room)
