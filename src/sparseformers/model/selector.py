"""The selector: a glance at the image, as coarse as a map of it, tells which parts the teacher would attend to.

Legend: B batch, G cells of the glance, D width, C channels of the map, h x w the map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TINY = torch.finfo(torch.float32).tiny
FLAT = 1e-4  # a variance of normalised pixels that is as good as none


class Selector(nn.Module):
    """The teacher's patch embedding of the glance, the detail lost in it, and two convolutions around each place of a map.

    It learns to tell the shares of the teacher's attention, by the Kullback-Leibler divergence from them; a new one gives a flat
    map. Blocks of the teacher on a coarser glance tell no more (docs/lab/looking.md).

    ``width`` is D, ``channels`` C; ``glance`` has the rows and columns of the cells that it looks at, ``map_grid`` h and w.
    """

    def __init__(self, width: int, channels: int, *, glance: tuple[int, int], map_grid: tuple[int, int]) -> None:
        super().__init__()
        self.glance, self.map_grid = glance, map_grid
        self.norm = nn.LayerNorm(width)
        self.narrow = nn.Linear(width, channels)
        self.detail = nn.Conv2d(1, channels, 2, stride=2)  # from quarters of the map's places
        self.brightness: Tensor
        self.register_buffer("brightness", torch.full((3, 1, 1), 1 / 3), persistent=False)  # the weights of the colours
        self.places = nn.Parameter(torch.zeros(channels, *map_grid))
        self.around = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=reach, dilation=reach) for reach in (1, 2))
        self.out = nn.Conv2d(channels, 1, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, cells: Tensor, detail: Tensor) -> Tensor:
        """Tokens of the glance's cells B x G x D and their :meth:`detail_of` -> logarithms of shares B x h x w, float32."""
        seen = self.narrow(self.norm(cells)).transpose(1, 2).unflatten(2, self.glance)  # B x C x rows x columns
        if self.glance != self.map_grid:
            seen = F.interpolate(seen, size=self.map_grid, mode="bilinear", align_corners=False)
            detail = F.interpolate(detail, size=tuple(2 * side for side in self.map_grid), mode="bilinear", align_corners=False)
        hidden = F.gelu(seen + self.detail(detail) + self.places)
        for convolution in self.around:
            hidden = hidden + F.gelu(convolution(hidden))
        return self.out(hidden).float().flatten(1).log_softmax(dim=1).unflatten(1, self.map_grid)

    def detail_of(self, quarters: Tensor) -> Tensor:
        """Pixels of the quarters of cells, B x 2 rows x 2 columns x 3 x P x P -> the logarithms of how much brightness varies in
        each: B x 1 x 2 rows x 2 columns.
        """
        side, image = quarters.shape[-1], quarters.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)  # B x 3 x H x W, a view
        brightness = (image * self.brightness).sum(dim=1, keepdim=True)
        # Six times as fast as PyTorch's own variance.
        return torch.log10(F.avg_pool2d(brightness.square(), side) - F.avg_pool2d(brightness, side).square() + FLAT)


def shares_on(attention: Tensor, grid: tuple[int, int]) -> Tensor:
    """A map B x h x w on another grid, each cell with the sum over its area, so that the sum of all stays: B x rows x columns."""
    rows, columns = (_overlap(cells, patches, attention) for cells, patches in zip(grid, attention.shape[1:], strict=True))
    return rows @ attention.float() @ columns.T


def _overlap(cells: int, patches: int, like: Tensor) -> Tensor:
    """The part of each of so many equal patches of a line that lies in each of so many equal cells: cells x patches."""
    edges = torch.arange(cells + 1, dtype=torch.float32, device=like.device) * patches / cells
    starts = torch.arange(patches, dtype=torch.float32, device=like.device)
    return (torch.minimum(edges[1:, None], starts + 1) - torch.maximum(edges[:-1, None], starts)).clamp(min=0)


def map_divergence(shares: Tensor, attention: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of a selector's maps from the teacher's: the mean over images, a float32 scalar in nats.

    Shares B x h x w and attention B x rows x columns, on any grid; both of sum 1.
    """
    wanted = shares_on(attention, (shares.shape[1], shares.shape[2])).flatten(1)
    return F.kl_div(shares.float().clamp_min(TINY).log().flatten(1), wanted, reduction="batchmean")
