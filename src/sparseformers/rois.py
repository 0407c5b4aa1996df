"""RoI arithmetic: pure functions, in float32 whatever the precision around them.

Legend: B batch, N latent tokens, P sampling points per token, S stages.
A RoI is (x1, y1, x2, y2) in [0, 1] of the image, x to the right, y down; a point is (x, y) in the same coordinates.
RoIs may reach outside the image: what lies there is the image's border.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

SMALLEST_RADIUS = 0.012  # of the neighbourhood of a sampling point, as a share of the image: the stem sees some pixels there


def initial_grid(tokens: int) -> Tensor:
    """Overlapping half-image boxes on a grid that covers the image: N x 4, row by row from the top left.
    The grid is the fullest one near a square (48 -> 6 rows of 8); a number that has no such divisors is spread over
    rows of nearly equal length (7 -> rows of 2, 3 and 2). A row (or column) of one box spans the whole image.
    """
    rows = row_lengths(tokens)
    boxes = [
        (x1, y1, x2, y2)
        for columns, (y1, y2) in zip(rows, _overlapping_intervals(len(rows)), strict=True)
        for x1, x2 in _overlapping_intervals(columns)
    ]
    return torch.tensor(boxes, dtype=torch.float32)


def cells(tokens: int, aspect: float = 1.0) -> Tensor:
    """Boxes that tile the image without overlap, the patches of a coarse grid: N x 4, row by row from the top left.
    They are near squares on an image of that height over width.
    """
    rows = row_lengths(tokens, aspect)
    boxes = [
        (column / columns, row / len(rows), (column + 1) / columns, (row + 1) / len(rows))
        for row, columns in enumerate(rows)
        for column in range(columns)
    ]
    return torch.tensor(boxes, dtype=torch.float32)


def grid_of(tokens: int, aspect: float = 1.0) -> tuple[int, int]:
    """Rows and columns of the grid of N tokens; where rows differ in length, columns of the longest."""
    lengths = row_lengths(tokens, aspect)
    return len(lengths), max(lengths)


def row_lengths(tokens: int, aspect: float = 1.0) -> list[int]:
    """The number of tokens in each row of the grid of N, from top to bottom.
    The grid is the fullest one whose cells are near squares on an image of that height over width. ValueError for no token.
    """
    if tokens < 1:
        raise ValueError(f"a grid needs at least one token, not {tokens}")
    # How far cells are from squares; of grids that are equally near the wider one comes first.
    stretch = {rows: abs(math.log(tokens / rows / rows * aspect)) for rows in range(1, tokens + 1) if tokens % rows == 0}
    nearest = min(stretch, key=lambda rows: (round(stretch[rows], 9), rows))
    if stretch[nearest] <= math.log(2) + 1e-9:
        return [tokens // nearest] * nearest
    rows = min(tokens, max(1, round(math.sqrt(tokens * aspect))))
    # Bresenham's rounding keeps the long rows apart instead of piling them up at one end.
    edges = [(tokens * row + rows // 2) // rows for row in range(rows + 1)]
    return [end - start for start, end in pairwise(edges)]


def _overlapping_intervals(count: int) -> list[tuple[float, float]]:
    """``count`` intervals of length one half that cover [0, 1] from edge to edge; the whole of it for one."""
    if count == 1:
        return [(0.0, 1.0)]
    return [(step / (count - 1) / 2, step / (count - 1) / 2 + 0.5) for step in range(count)]


def centre_and_size(rois: Tensor) -> tuple[Tensor, Tensor]:
    """RoIs (... x 4) to their centres (... x 2) and their sizes (w, h) >= 0 (... x 2)."""
    rois = rois.float()
    near, far = rois[..., :2], rois[..., 2:]
    return (near + far) / 2, (far - near).abs()


def from_centre_and_size(centre: Tensor, size: Tensor) -> Tensor:
    """Centres and sizes (... x 2 each) to RoIs (... x 4)."""
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def adjust(rois: Tensor, delta: Tensor) -> Tensor:
    """Moves and scales RoIs (... x 4) relative to their own size (Gao et al., ICLR 2024, section 3).
    By ``delta`` (... x 4): centre += (dx * w, dy * h); (w, h) *= exp((dw, dh)). Gives x1 <= x2 and y1 <= y2.
    """
    centre, size = centre_and_size(rois)
    delta = delta.float()
    return from_centre_and_size(centre + delta[..., :2] * size, size * delta[..., 2:].exp())


def standardise(offsets: Tensor) -> Tensor:
    """Brings the P >= 2 offsets of each token (... x P x 2) to mean 0 and (unbiased) standard deviation 1/3, per axis.
    Three standard deviations then fill half a RoI on either side, so most points stay inside it.
    """
    offsets = offsets.float()
    spread, mean = torch.std_mean(offsets, dim=-2, keepdim=True)
    return (offsets - mean) / (3 * (spread + 1e-5))


def sampling_points(rois: Tensor, offsets: Tensor) -> Tensor:
    """The sampling points of each token, B x N x P x 2: its offsets, standardised, scaled by its RoI and set at the RoI's centre.
    RoIs are B x N x 4, offsets (x, y) are B x N x P x 2 in units of the RoI's size.
    """
    centre, size = centre_and_size(rois)
    return centre.unsqueeze(-2) + standardise(offsets) * size.unsqueeze(-2)


def neighbourhoods(rois: Tensor, points: int) -> Tensor:
    """The radius that a token sees around each of its P points: half the spacing of so many that fill the RoI evenly.
    RoIs ... x 4 -> ... x 2, to either side along x and y, at least ``SMALLEST_RADIUS``.
    """
    _, size = centre_and_size(rois)
    return (size / (2 * math.sqrt(points))).clamp_min(SMALLEST_RADIUS)


def regular_points(rois: Tensor, side: int) -> Tensor:
    """The centres of side x side equal parts of each RoI, row by row: the pixels of a patch that shows it.
    RoIs B x N x 4 -> points B x N x side² x 2.
    """
    rois = rois.float()
    steps = (torch.arange(side, dtype=torch.float32, device=rois.device) + 0.5) / side
    inside = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).flatten(0, 1)  # side² x 2
    near, far = rois[..., None, :2], rois[..., None, 2:]
    return near + inside * (far - near)


def position_encoding(rois: Tensor, width: int, *, max_frequency: float = 128.0) -> Tensor:
    """The continuous sinusoidal encoding of the four sides of a RoI (Gao et al., CVPR 2024, appendix A.2).
    RoIs ... x 4 -> ... x width, a multiple of 8. PE_v = [sin(pi f0 v), cos(pi f0 v), sin(pi f1 v), ...] with width/8 frequencies
    evenly spaced in log from 1 to ``max_frequency``; PE = [PE_left | PE_top | PE_right | PE_bottom].
    """
    angles = _side_angles(rois, width // 8, max_frequency)  # ... x 4 x width/8
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)


def released_position_encoding(rois: Tensor, width: int, *, max_frequency: float = 128.0) -> Tensor:
    """The layout that the authors' released weights were trained with, in the place of :func:`position_encoding`.
    It spaces width/4 frequencies in log, and gives each side the sines of the even-indexed ones, then the cosines of the others.
    """
    angles = _side_angles(rois, width // 4, max_frequency)  # ... x 4 x width/4
    return torch.cat([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-2)


def _side_angles(rois: Tensor, frequencies: int, max_frequency: float) -> Tensor:
    """The angles pi f v of every side v: (... x 4) -> ... x 4 x frequencies."""
    steps = torch.linspace(0, math.log(max_frequency), frequencies, dtype=torch.float32, device=rois.device)
    # (pi v) f and not (pi f) v: the released weights were trained with this rounding, which 128 pi magnifies.
    return (rois.float().unsqueeze(-1) * math.pi) * steps.exp()
