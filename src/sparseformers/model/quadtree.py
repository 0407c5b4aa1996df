"""Cells of several sizes: a coarse grid over the image, whose cells are split into four where a map says so.

All cells that can come of it are numbered level by level, row by row. Legend: B batch, N leaves, L levels of splits, M cells of
all levels. The grid of level l has 2^l times the rows and columns of the start.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ORDER = 1e-3
"""By which share the last of all cells is put behind the first: cells of equal claims are split in their order in any runtime."""


class Quadtree(nn.Module):
    """The cells from ``start`` rows and columns down L = ``levels`` >= 1 splits, and which of them are the leaves of a map."""

    cells: Tensor  # M x 4, RoIs
    level: Tensor  # M, the level of each cell, int64
    ancestors: Tensor  # M x (L+1), int64: the cell of each level that a cell lies in; itself from its own level on
    places: Tensor  # 2 x (L+1) x M, int64: row and column of the cell of each level that a cell lies in; 0 below its own
    order: Tensor  # the factors of ORDER, one for each cell that can be split

    def __init__(self, start: tuple[int, int], levels: int) -> None:
        super().__init__()
        self.grids = [(start[0] << level, start[1] << level) for level in range(levels + 1)]  # rows and columns of each level
        sizes = [rows * columns for rows, columns in self.grids]
        self.first = [sum(sizes[:level]) for level in range(levels + 2)]  # the number of the first cell of each level, and last M
        boxes = [_boxes(rows, columns) for rows, columns in self.grids]
        self.register_buffer("cells", torch.cat(boxes), persistent=False)
        self.register_buffer(
            "level", torch.cat([torch.full((size,), number) for number, size in enumerate(sizes)]), persistent=False
        )
        self.register_buffer("ancestors", torch.cat([self._ancestors(level) for level in range(levels + 1)]), persistent=False)
        first, columns = torch.tensor(self.first[:-1]), torch.tensor([columns for _, columns in self.grids])
        within = (self.ancestors - first).clamp(min=0)
        self.register_buffer("places", torch.stack([within // columns, within % columns]).mT.contiguous(), persistent=False)
        self.register_buffer("order", 1 - ORDER * torch.arange(self.first[levels]) / self.first[levels], persistent=False)

    def _ancestors(self, level: int) -> Tensor:
        rows, columns = (torch.arange(side) for side in self.grids[level])
        found = []
        for other in range(len(self.grids)):
            above = min(other, level)  # from its own level on a cell is its own ancestor
            halvings = level - above
            found.append(self.first[above] + (rows[:, None] >> halvings) * self.grids[above][1] + (columns >> halvings))
        return torch.stack(found, dim=-1).flatten(0, 1)

    @property
    def map_grid(self) -> tuple[int, int]:
        """Rows and columns of the map that splits go by: a share for each of the smallest cells that can be split."""
        return self.grids[-2]

    def claims(self, shares: Tensor, sharpness: float) -> Tensor:
        """How much each cell asks to be split: its share of the map over its area to the power of ``sharpness``.

        No cell asks for more than the one that it lies in, so that the cells with the largest claims are those that a greedy
        splitting, the heaviest first, would come to. A ``sharpness`` of 0 goes by the share alone, 1 by its density.
        Shares B x rows x columns on ``map_grid``, at least 0 -> B x (cells that can be split), float32.
        """
        masses = [shares.float().unsqueeze(1)]  # B x 1 x rows x columns, coarsest first
        while len(masses) < len(self.grids) - 1:
            masses.insert(0, 4 * F.avg_pool2d(masses[0], 2))
        claims = [masses[0]]
        for level, mass in enumerate(masses[1:], start=1):
            parents = F.interpolate(claims[-1], scale_factor=2.0, mode="nearest")
            claims.append(torch.minimum(mass * 4 ** (level * sharpness), parents))
        return torch.cat([each.flatten(1) for each in claims], dim=1) * self.order

    def leaves(self, claims: Tensor, splits: int) -> Tensor:
        """The cells that tile the image after so many splits (1 to all), those of the largest of :meth:`claims`.

        B x N int64 in ascending order, N = start cells + 3 ``splits``.
        """
        count = len(self.cells)
        split = torch.zeros(claims.shape[0], count, device=claims.device)
        split = split.scatter(1, claims.topk(splits, dim=1).indices, 1.0)
        # A cell is there if the one that it lies in is split, and a leaf if it is not split itself.
        parents = self.ancestors.gather(1, (self.level - 1).clamp(min=0).unsqueeze(1)).squeeze(1)  # M
        there = torch.where(self.level == 0, 1.0, split[:, parents])
        numbers = torch.arange(count, device=claims.device)
        rank = there * (1 - split) * (2 * count - numbers)  # whole numbers, of which float32 holds those up to 2^24
        return rank.topk(self.first[1] + 3 * splits, dim=1).indices

    def stages(self, leaves: Tensor) -> Tensor:
        """Leaves B x N and what they were split from, as RoIs: B x (L+1) x N x 4, from the start cells to the leaves."""
        return self.cells[self.ancestors[leaves]].transpose(1, 2)


def _boxes(rows: int, columns: int) -> Tensor:
    """The cells of a grid row by row, rows·columns x 4."""
    top, left = torch.meshgrid(torch.arange(rows) / rows, torch.arange(columns) / columns, indexing="ij")
    return torch.stack([left, top, left + 1 / columns, top + 1 / rows], dim=-1).flatten(0, 1)
