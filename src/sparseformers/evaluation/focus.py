"""Where a student looks, in numbers: how far its RoIs moved, how large they are, how much of the image they cover.

Pure functions of RoIs B x T x N x 4: B images, T stages (the first one is the start), N latent tokens; a RoI is
(x1, y1, x2, y2) in [0, 1] of the image. Lengths are in units of the image's sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparseformers.rois import centre_and_size, neighbourhoods

COVERAGE_SIDE = 64
"""Coverage is counted on a grid of so many points a side."""


@dataclass(frozen=True)
class Drift:
    """What became of the RoIs of some images, from the first stage to the last."""

    movement: float
    """Mean distance of a RoI's centre at the end from its place at the start, in units of the image's sides."""
    step: float
    """Mean distance that a centre moves from one stage to the next; 0 where there is only one."""
    size: float
    """Mean side of a RoI at the end: the root of its area."""
    size_change: float
    """Mean ratio of that side at the end to the one at the start, in the sense of the geometric mean."""
    coverage: float
    """Mean share of the image that at least one RoI covers at the end, in [0, 1]."""


def measure_drift(rois: Tensor, start: Tensor | None = None) -> Drift:
    """All figures at once.

    Args:
        rois: B x T x N x 4.
        start: N x 4, where RoIs were when the training began; the first stage by default, which a front may have learnt.

    Raises:
        ValueError: for another form, or no image, stage or token.
    """
    if rois.ndim != 4 or rois.shape[-1] != 4 or not rois.numel():
        raise ValueError(f"rois must be B x T x N x 4 and not empty, not {tuple(rois.shape)}")
    begin = rois[:, 0] if start is None else start.expand_as(rois[:, 0])
    end = rois[:, -1]
    before, after = side(begin), side(end)
    return Drift(
        movement=distance(begin, end).mean().item(),
        step=distance(rois[:, :-1], rois[:, 1:]).mean().item() if rois.shape[1] > 1 else 0.0,
        size=after.mean().item(),
        size_change=(after.clamp_min(1e-6) / before.clamp_min(1e-6)).log().mean().exp().item(),
        coverage=coverage(end).mean().item(),
    )


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Distance between the centres of RoIs: ... x 4 twice -> ..., at least 0."""
    return torch.linalg.vector_norm(centre_and_size(first)[0] - centre_and_size(second)[0], dim=-1)


def side(rois: Tensor) -> Tensor:
    """The root of the area of RoIs: ... x 4 -> ..., at least 0."""
    return centre_and_size(rois)[1].prod(dim=-1).sqrt()


def coverage(rois: Tensor, points: int = COVERAGE_SIDE) -> Tensor:
    """The share of the image that at least one RoI covers: B x N x 4 -> B in [0, 1].

    Args:
        rois: of one stage.
        points: a side of the grid that is counted on.
    """
    return (depth(rois, points) > 0).float().mean(dim=(1, 2))


def overlap(rois: Tensor, points: int = COVERAGE_SIDE) -> Tensor:
    """The share of the RoIs' area inside the image that is not new: B x N x 4 -> B in [0, 1).

    It is 1 - (area of their union) / (sum of their areas): 0 where no two RoIs share a place, near 1 where all are the same.

    Args:
        rois: of one stage.
        points: a side of the grid that is counted on.
    """
    counts = depth(rois, points)
    return 1 - (counts > 0).float().sum(dim=(1, 2)).clamp_min(1) / counts.sum(dim=(1, 2)).clamp_min(1)


def depth(rois: Tensor, points: int = COVERAGE_SIDE) -> Tensor:
    """How many RoIs cover each point of a regular grid over the image: B x N x 4 -> B x G x G.

    Args:
        rois: of one stage.
        points: G.
    """
    centre, size = centre_and_size(rois)
    return _boxes_over_grid(centre, size / 2, points)


def seen(points: Tensor, rois: Tensor, side: int = COVERAGE_SIDE) -> Tensor:
    """The share of the image that lies in the neighbourhood of at least one sampling point.

    A neighbourhood is a box around the point, of the part of its RoI that falls to it: P points that fill a RoI evenly see all
    of it. A point outside of the image sees the border, as in the network.

    Args:
        points: B x N x P x 2, of one look.
        rois: B x N x 4, those that were looked at.
        side: of the grid that is counted on.

    Returns:
        B in [0, 1].
    """
    reach = neighbourhoods(rois, points.shape[-2]).unsqueeze(-2).expand_as(points)
    counts = _boxes_over_grid(points.float().clamp(0, 1).flatten(1, 2), reach.flatten(1, 2), side)
    return (counts > 0).float().mean(dim=(1, 2))


def _boxes_over_grid(centre: Tensor, half: Tensor, points: int) -> Tensor:
    """How many boxes of these centres and half sides (B x K x 2 each) cover each point of a grid: B x G x G."""
    steps = (torch.arange(points, dtype=torch.float32, device=centre.device) + 0.5) / points
    # Whether a box reaches each column and each row: B x K x G twice.
    across, down = ((steps - centre[..., axis, None]).abs() <= half[..., axis, None] for axis in (0, 1))
    return torch.einsum("bkx,bky->byx", across.float(), down.float())
