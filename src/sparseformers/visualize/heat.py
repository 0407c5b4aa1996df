"""Heat over a photograph: how much of something falls on each part of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from matplotlib import colormaps
from torch import Tensor

from sparseformers.visualize.panels import DIM, LUMA

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in [0, 1] of an image."""

COLOURS = "cividis"
"""matplotlib's map for all kinds of colour vision (Nuñez et al., 2018): dark blue, grey, yellow, ever lighter."""
STRENGTH = 0.7
"""Of the heat's colours over the photograph, which is grey: it shows through dark and white photographs alike."""


def heat_over(image: Tensor, heat: Tensor, frame: Box, *, most: float) -> Tensor:
    """A photograph, grey, under the colours of a coarse map that is smoothed between the centres of its cells.

    Args:
        image: 3 x H x W in [0, 1].
        heat: h x w, at least 0: from the top left to the bottom right of ``frame``.
        frame: the part of the image that the map is of; what is outside of it is dark.
        most: the value that has the lightest colour, above 0; larger ones have it, too.

    Returns:
        3 x H x W in [0, 1].
    """
    height, width = image.shape[-2:]
    x1, y1, x2, y2 = frame
    across = ((torch.arange(width) + 0.5) / width - x1) / (x2 - x1)  # in [0, 1] inside of the frame
    down = ((torch.arange(height) + 0.5) / height - y1) / (y2 - y1)
    places = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)  # H x W x 2
    smooth = F.grid_sample(
        heat.float()[None, None], 2 * places[None] - 1, mode="bicubic", padding_mode="border", align_corners=False
    )[0, 0]
    colours = torch.from_numpy(colormaps[COLOURS]((smooth / most).clamp(0, 1).numpy())[..., :3]).float().movedim(-1, 0)
    grey = (image.clamp(0, 1) * image.new_tensor(LUMA).view(3, 1, 1)).sum(dim=0).expand(3, -1, -1)
    inside = ((places >= 0) & (places <= 1)).all(dim=-1)
    return torch.where(inside, STRENGTH * colours + (1 - STRENGTH) * grey, DIM * grey)
