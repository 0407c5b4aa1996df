"""Heat over a photograph: how much of something falls on each part of it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from torch import Tensor

from sparseformers.figures.data import Box
from sparseformers.figures.panels import DIM, LUMA
from sparseformers.figures.sheet import FAINT_INK

COLOURS = "cividis"
"""matplotlib's map for all kinds of colour vision (Nuñez et al., 2018): dark blue, grey, yellow, ever lighter."""
TIMES = "\N{MULTIPLICATION SIGN}"
LIGHTEST = 3.0
"""What has the lightest colour, in units of an even spread; the same for all maps, so that they can be compared."""


def heat_over(image: Tensor, heat: Tensor, frame: Box) -> Tensor:
    """A photograph, grey, under the colours of a coarse map that is smoothed between the centres of its cells.

    The photograph darkens the colours and never hides them: what is dark blue or yellow can be told on black, too.

    Args:
        image: 3 x H x W in [0, 1].
        heat: h x w from the top left to the bottom right of ``frame``, sums to one; ``LIGHTEST`` / hw has the lightest colour.
        frame: the part of the image that the map is of; what is outside of it is dark.

    Returns:
        3 x H x W in [0, 1].
    """
    places = _places_in(frame, *image.shape[-2:])
    scaled = (heat.float() * heat.numel() / LIGHTEST).clamp(0, 1)  # before smoothing, which overshoots around high peaks
    grid = (2 * places - 1).unsqueeze(0)
    smooth = F.grid_sample(scaled[None, None], grid, mode="bicubic", padding_mode="border", align_corners=False)[0, 0]
    colours = colormaps[COLOURS](smooth.clamp(0, 1).numpy())[..., :3]
    coloured = torch.from_numpy(colours).float().movedim(-1, 0)
    grey = (image.clamp(0, 1) * image.new_tensor(LUMA).view(3, 1, 1)).sum(dim=0).expand(3, -1, -1)
    shaded = (coloured * (0.55 + 0.45 * grey) + 0.1 * grey).clamp_max(1)
    inside = ((places >= 0) & (places <= 1)).all(dim=-1)
    return torch.where(inside, shaded, DIM * grey)


def draw_scale(axes: Axes, *, height: float) -> None:
    """What the colours mean, under a panel.

    Args:
        axes: those of the panel.
        height: of the room under it, in inches.
    """
    panel = axes.bbox.height / axes.figure.dpi  # in inches
    scale = axes.inset_axes((0.15, -0.45 * height / panel, 0.7, 0.3 * height / panel))
    scale.imshow(np.linspace(0, 1, 128)[None], cmap=COLOURS, aspect="auto", extent=(0, LIGHTEST, 0, 1))
    scale.set_yticks([])
    scale.set_xticks([0, 1, LIGHTEST], ["none", "even", f"{LIGHTEST:g} {TIMES} even"])
    scale.tick_params(labelsize=6.5, labelcolor=FAINT_INK, color=FAINT_INK, length=1.5, width=0.5, pad=1)
    scale.spines[:].set_visible(False)


def _places_in(frame: Box, height: int, width: int) -> Tensor:
    """Where the centres of H x W pixels lie in a part of the image: H x W x 2, (x, y) in [0, 1] inside of it."""
    x1, y1, x2, y2 = frame
    across = ((torch.arange(width) + 0.5) / width - x1) / (x2 - x1)
    down = ((torch.arange(height) + 0.5) / height - y1) / (y2 - y1)
    return torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
