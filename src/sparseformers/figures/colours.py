"""One colour for each token, the same in every panel."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LinearSegmentedColormap

from sparseformers.rois import row_lengths

# Okabe and Ito's colours for all kinds of colour vision, without those too dark for a dark photograph.
ANCHORS = ("#56b4e9", "#00b488", "#f0e442", "#ffa51f", "#e8631c", "#dd7fb4")
HALO = "#101014"
"""Drawn around every line and dot: with it, the colours (all of them light) stand out on white and on busy pictures."""


def token_colours(tokens: int) -> npt.NDArray[np.float64]:
    """Colours of N tokens: all different, light, safe for colour blindness, and unlike those of the grid's neighbours.

    Args:
        tokens: N, at least 1.

    Returns:
        N x 3, red-green-blue in [0, 1]; always the same for the same N.
    """
    if tokens < 1:
        raise ValueError(f"colours are for at least one token, not {tokens}")
    places = np.arange(tokens) * _stride(tokens) % tokens
    scale = LinearSegmentedColormap.from_list("tokens", ANCHORS, N=1024)
    colours: npt.NDArray[np.float64] = scale(places / max(1, tokens - 1))[:, :3]
    return colours


def _stride(tokens: int) -> int:
    """The step through the scale that takes neighbours on the initial grid farthest apart, and each colour once."""
    row = max(row_lengths(tokens))
    neighbours = [distance for distance in (1, row - 1, row, row + 1) if 0 < distance < tokens]

    def nearest(stride: int) -> int:
        steps = [stride * distance % tokens for distance in neighbours]
        return min((min(step, tokens - step) for step in steps), default=0)

    return max((stride for stride in range(1, tokens + 1) if math.gcd(stride, tokens) == 1), key=nearest)
