"""Measures of regions of interest and of sampling points: their places, coverage, and share on objects.

Pure functions of RoIs B x S x N x 4: B images, S stages (the first one is the start), N latent tokens; a RoI is (x1, y1, x2, y2)
in [0, 1] of the image. Lengths are in units of the image's sides. H x W are pixels of the network's view.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparseformers.rois import centre_and_size, neighbourhoods

COVERAGE_SIDE = 64  # coverage is counted on a grid of so many points a side


@dataclass(frozen=True)
class Drift:
    """Change of RoIs from the first stage to the last; means over images and tokens."""

    movement: float  # distance of a RoI's centre at the end from its place at the start, in units of the image's sides
    step: float  # distance that a centre moves from one stage to the next; 0 where there is only one
    size: float  # side of a RoI at the end: the root of its area
    size_change: float  # ratio of that side at the end to the one at the start, in the sense of the geometric mean
    coverage: float  # share of the image that at least one RoI covers at the end, in [0, 1]


@dataclass(frozen=True)
class Spread:
    """A figure over images, each counted once."""

    mean: float
    std: float  # standard deviation between images (not of the mean); 0 for a single one

    @classmethod
    def of(cls, values: Tensor) -> Spread:
        exact = values.double()
        return cls(exact.mean().item(), exact.std(correction=0).item())


@dataclass(frozen=True)
class ForegroundFigures:
    """Sampling points of one stage, and the foreground."""

    points: Spread  # share of the sampling points that fall on the foreground
    ratio: Spread  # that share over the foreground's share of the area: 1 as with points that are spread evenly
    elsewhere: float | None  # share on the other images' foregrounds: the score of blind points; None for a single image


@dataclass(frozen=True)
class StageFigures:
    """The RoIs of one stage, and the sampling points in them."""

    stage: int  # 0 for the start, i for after the i-th focusing iteration
    moved: Spread | None  # distance of the centres of RoIs from those of the stage before; None at the start
    from_start: Spread  # their distance from those at the start
    size: Spread  # side of a RoI: the root of its area
    rois_cover: Spread  # share of the image that lies in at least one RoI
    overlap: Spread  # share of the RoIs' area that is not new: 1 - union / sum of areas; 0 where they share nothing
    points_cover: Spread | None  # share of the image near at least one sampling point; None where nothing reads in these RoIs
    foreground: ForegroundFigures | None  # None where nothing is known of foregrounds, or nothing reads in these RoIs


def measure_drift(rois: Tensor, start: Tensor | None = None) -> Drift:
    """Movement, size and coverage of RoIs (B x S x N x 4).

    ``start`` (N x 4) is where RoIs were when the training began; the first stage by default, which a front may have learnt.
    Raises ValueError for another form, or no image, stage or token.
    """
    if rois.ndim != 4 or rois.shape[-1] != 4 or not rois.numel():
        raise ValueError(f"rois must be B x S x N x 4 and not empty, not {tuple(rois.shape)}")
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


def coverage(rois: Tensor) -> Tensor:
    """Share of the image that at least one RoI (B x N x 4) of a stage covers: B."""
    return (depth(rois) > 0).float().mean(dim=(1, 2))


def overlap(rois: Tensor, points: int = COVERAGE_SIDE) -> Tensor:
    """1 - (area of the union of RoIs B x N x 4) / (sum of their areas), inside the image: B in [0, 1), 0 without overlap."""
    counts = depth(rois, points)
    return 1 - (counts > 0).float().sum(dim=(1, 2)).clamp_min(1) / counts.sum(dim=(1, 2)).clamp_min(1)


def depth(rois: Tensor, points: int = COVERAGE_SIDE) -> Tensor:
    """The number of RoIs of a stage that cover each point of a regular grid: B x N x 4 -> B x G x G, G = ``points``."""
    centre, size = centre_and_size(rois)
    return _boxes_over_grid(centre, size / 2, points)


def stage_means(rois: Tensor) -> Tensor:
    """Means over tokens of RoIs B x S x N x 4: B x S x 5, moved, from start, size, coverage, overlap."""
    before = torch.cat([rois[:, :1], rois[:, :-1]], dim=1)
    moved, from_start = distance(before, rois).mean(dim=-1), distance(rois[:, :1].expand_as(rois), rois).mean(dim=-1)
    covered, overlapping = (torch.stack([of_stage(own) for own in rois.unbind(dim=1)], dim=1) for of_stage in (coverage, overlap))
    return torch.stack([moved, from_start, side(rois).mean(dim=-1), covered, overlapping], dim=-1)


def sampled(points: Tensor, rois: Tensor, side: int = COVERAGE_SIDE) -> Tensor:
    """Share (B, in [0, 1]) of the image in the neighbourhood of at least one sampling point of a stage.

    A neighbourhood is a box around the point, of the part of its RoI that falls to it. A point outside of the image samples the
    border, as in the network. Points are B x N x P x 2, RoIs B x N x 4; ``side`` is that of the grid that is counted on.
    """
    reach = neighbourhoods(rois, points.shape[-2]).unsqueeze(-2).expand_as(points)
    counts = _boxes_over_grid(points.float().clamp(0, 1).flatten(1, 2), reach.flatten(1, 2), side)
    return (counts > 0).float().mean(dim=(1, 2))


def _boxes_over_grid(centre: Tensor, half: Tensor, points: int) -> Tensor:
    """The number of boxes of these centres and half sides (B x K x 2 each) that cover each point of a grid: B x G x G."""
    steps = (torch.arange(points, dtype=torch.float32, device=centre.device) + 0.5) / points
    # Whether a box reaches each column and each row: B x K x G twice.
    across, down = ((steps - centre[..., axis, None]).abs() <= half[..., axis, None] for axis in (0, 1))
    return torch.einsum("bkx,bky->byx", across.float(), down.float())


def point_density(points: Tensor, height: int, width: int) -> Tensor:
    """Share of sampling points (B x N x P x 2, in [0, 1]) in each pixel: B x H x W, sum 1; those outside count at the border."""
    places = points.float().flatten(1, 2)  # B x NP x 2
    column = (places[..., 0] * width).floor().clamp(0, width - 1).long()
    row = (places[..., 1] * height).floor().clamp(0, height - 1).long()
    share = torch.full(column.shape, 1 / column.shape[1], device=places.device)
    density = torch.zeros(len(points), height * width, device=places.device)
    return density.scatter_add_(1, row * width + column, share).unflatten(1, (height, width))


def foreground_share(density: Tensor, masks: Tensor) -> Tensor:
    """Share of the sampling points (density from :func:`point_density`) on foreground masks: B x H x W twice -> B in [0, 1]."""
    return (density * masks).sum(dim=(1, 2))


class Elsewhere:
    """Sampling points of one image on the foregrounds of the others: the mean share over all pairs of two images.

    Objects tend to lie in the middle, where points that know nothing of the image score, too; what is above is due to the image.
    Sums are kept and not images: the sum over i != j of d_i m_j is (sum of d)(sum of m) - sum of d_i m_i.
    """

    def __init__(self) -> None:
        self._densities: Tensor | float = 0.0
        self._masks: Tensor | float = 0.0
        self._own, self._images = 0.0, 0

    def add(self, densities: Tensor, masks: Tensor) -> None:
        """Takes in images: B x H x W twice, of the same images."""
        self._densities = self._densities + densities.double().sum(dim=0)
        self._masks = self._masks + masks.double().sum(dim=0)
        self._own += foreground_share(densities.double(), masks.double()).sum().item()
        self._images += len(masks)

    def share(self) -> float | None:
        """The mean share, in [0, 1]; None for fewer than two images."""
        if self._images < 2:
            return None
        together = float((torch.as_tensor(self._densities) * self._masks).sum())
        return (together - self._own) / (self._images * (self._images - 1))
