"""The contents of a panel: the photograph, boxes and points in the photograph's own pixels, one colour for each token."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from sparseformers.figures.data import RoIPicture, coverage, inside_frame, inside_rois
from sparseformers.rois import centre_and_size, row_lengths

Array = npt.NDArray[np.float64]

# Okabe and Ito's colours for all kinds of colour vision, without those too dark for a dark photograph.
ANCHORS = ("#56b4e9", "#00b488", "#f0e442", "#ffa51f", "#e8631c", "#dd7fb4")
HALO = "#101014"  # around every line and dot, so that the light colours stand out on white and on busy pictures
MARGIN = 0.04  # room around the photograph for what lies outside of it, as a share of its longer side
DIM = 0.3  # brightness of the (grey) photograph where no RoI or point is
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in brightness (ITU-R BT.601)


def token_colours(tokens: int) -> Array:
    """Colours of N tokens (N x 3 in [0, 1]): all different, light, safe for colour blindness, unlike the grid's neighbours'."""
    if tokens < 1:
        raise ValueError(f"colours are for at least one token, not {tokens}")
    places = np.arange(tokens) * _stride(tokens) % tokens
    scale = LinearSegmentedColormap.from_list("tokens", ANCHORS, N=1024)
    colours: Array = scale(places / max(1, tokens - 1))[:, :3]
    return colours


def _stride(tokens: int) -> int:
    """The step through the scale that takes neighbours on the initial grid farthest apart, and each colour once."""
    row = max(row_lengths(tokens))
    neighbours = [distance for distance in (1, row - 1, row, row + 1) if 0 < distance < tokens]

    def nearest(stride: int) -> int:
        steps = [stride * distance % tokens for distance in neighbours]
        return min((min(step, tokens - step) for step in steps), default=0)

    return max((stride for stride in range(1, tokens + 1) if math.gcd(stride, tokens) == 1), key=nearest)


def margin(width: int, height: int) -> float:
    """Room around a photograph of that size, in its pixels."""
    return MARGIN * max(width, height)


def draw_photograph(axes: Axes, image: Tensor, bright: Tensor | None = None) -> None:
    """The photograph (3 x H x W in [0, 1]) in pixel coordinates, with a margin; dark and grey where ``bright`` (H x W) is 0."""
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


# What follows draws tokens on axes that have the photograph (width x height pixels), in the N x 3 colours of the tokens. Places
# are in [0, 1] of the photograph; what reaches farther than the margin is drawn at the margin.


def draw_rois(axes: Axes, rois: Tensor, colours: Array, *, width: int, height: int) -> None:
    """A box with a dot at its centre for each of N x 4 RoIs; the boxes are thin and translucent where many overlap."""
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


def draw_stage(axes: Axes, picture: RoIPicture, rois: Tensor, colours: Array) -> None:
    """A picture with N x 4 RoIs on it; dark where none of them is, and where the student was not given it."""
    height, width = picture.image.shape[-2:]
    given = inside_frame(picture, height=height, width=width)
    draw_photograph(axes, picture.image, given * inside_rois(rois, height=height, width=width))
    draw_rois(axes, rois, colours, width=width, height=height)


def draw_last_points(axes: Axes, picture: RoIPicture, colours: Array) -> None:
    """A picture with its last sampling points on it; dark where none of them is near."""
    height, width = picture.image.shape[-2:]
    draw_photograph(axes, picture.image, coverage(picture, height=height, width=width))
    # A dot for each of N x P points, in the colour of its token; smaller where they are many.
    points, number = picture.points[-1], picture.points[-1].shape[1]
    room = (points.amax(dim=1) - points.amin(dim=1)).prod(dim=1).nan_to_num() / number  # of the photograph, for a point
    sizes = (6000 * room).clamp(0.3, 3.4).repeat_interleave(number).double().numpy()
    places = _on_panel(points.double().flatten(0, 1).numpy(), width, height)
    _draw_dots(axes, places, colours.repeat(number, axis=0), size=sizes, name="points")


def draw_cells(axes: Axes, cells: Tensor, *, width: int, height: int) -> None:
    """Thin edges of N x 4 RoIs that tile a part of the photograph."""
    corners = _on_panel(cells[:, [0, 1, 2, 1, 2, 3, 0, 3]].double().unflatten(1, (4, 2)).numpy(), width, height)
    axes.add_collection(PolyCollection(list(corners), facecolors="none", edgecolors=ANCHORS[2], linewidths=0.6, gid="cells"))


def draw_numbers(axes: Axes, rois: Tensor, colours: Array, *, width: int, height: int) -> None:
    """The numbers of N x 4 RoIs from 1 at their centres, dark on labels of their colours."""
    centres = _on_panel(centre_and_size(rois)[0].double().numpy(), width, height)
    for number, ((x, y), colour) in enumerate(zip(centres, colours, strict=True), start=1):
        if np.isfinite([x, y]).all():
            label = {"boxstyle": "round,pad=0.15", "facecolor": colour, "edgecolor": HALO, "linewidth": 0.4}
            axes.text(x, y, str(number), fontsize=6.5, color=HALO, ha="center", va="center", bbox=label, zorder=4)


def draw_paths(axes: Axes, before: Tensor, after: Tensor, colours: Array, *, width: int, height: int) -> None:
    """A faint line for each token, from where its centre was to where it is a stage later (N x 2 each)."""
    ends = [_on_panel(centres.double().numpy(), width, height) for centres in (before, after)]
    paths = LineCollection(list(np.stack(ends, axis=1)), colors=colours, linewidths=1.0, capstyle="round", gid="paths")
    paths.set_alpha(0.75)
    paths.set_path_effects([withStroke(linewidth=2.0, foreground=HALO, alpha=0.35)])
    paths.set_zorder(2.5)
    axes.add_collection(paths, autolim=False)


def _draw_dots(axes: Axes, places: Array, colours: Array, *, size: float | Array, name: str) -> None:
    finite = np.isfinite(places).all(axis=1)
    (across, down), sizes = places[finite].T, np.broadcast_to(size, len(places))[finite]
    edges = np.minimum(0.5, 0.27 * np.sqrt(sizes))
    axes.scatter(across, down, s=sizes, c=colours[finite], edgecolors=HALO, linewidths=edges, zorder=3, gid=name)


def _on_panel(places: Array, width: int, height: int) -> Array:
    """Points (... x 2) in [0, 1] to pixels; what is beyond the margin comes to lie just inside of it, to stay visible."""
    room = 0.7 * margin(width, height)
    scale = np.array([width, height], dtype=np.float64)
    return np.clip(places * scale, -room, scale + room)
