"""Do tokens look at objects? Pure functions of sampling points and of foregrounds, in the network's view of an image.

Legend: B images, K sampling points of all tokens together, H x W pixels of the view.
"""

from __future__ import annotations

import torch
from torch import Tensor


def point_density(points: Tensor, height: int, width: int) -> Tensor:
    """Where sampling points fall, as the share of them in each pixel.

    Args:
        points: B x N x P x 2, (x, y) in [0, 1] of the image; those outside of it count at its border, which is what they read.
        height: H.
        width: W.

    Returns:
        B x H x W, at least 0, of sum 1; float32.
    """
    places = points.float().flatten(1, 2)  # B x K x 2
    column = (places[..., 0] * width).floor().clamp(0, width - 1).long()
    row = (places[..., 1] * height).floor().clamp(0, height - 1).long()
    share = torch.full(column.shape, 1 / column.shape[1], device=places.device)
    density = torch.zeros(len(points), height * width, device=places.device)
    return density.scatter_add_(1, row * width + column, share).unflatten(1, (height, width))


def foreground_share(density: Tensor, masks: Tensor) -> Tensor:
    """The share of sampling points that fall on the foreground: B x H x W twice -> B in [0, 1].

    Args:
        density: from :func:`point_density`.
        masks: the share of each pixel that is foreground, in [0, 1].
    """
    return (density * masks).sum(dim=(1, 2))


class Elsewhere:
    """What the points of one image would score on the foregrounds of the others: the mean over all pairs of two images.

    Photographers put objects in the middle, and grids of RoIs may be denser there: points that know nothing of the image score
    more than the foreground's share of the area then. This is what they score; what is above it is due to the image.

    Sums are kept and not images: the sum over i != j of d_i m_j is (sum of d)(sum of m) - sum of d_i m_i.
    """

    def __init__(self) -> None:
        self._densities: Tensor | float = 0.0
        self._masks: Tensor | float = 0.0
        self._own = 0.0
        self._images = 0

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
