"""The grid front, beyond the papers: it starts as the teacher at a lower resolution.

The image is resized so that it has as many patches as there are tokens, and these become tokens as in the teacher: by its patch
embedding, its position embedding at the patch's place, and its prefix tokens. So a new student *is* its teacher on a smaller
image; none of the teacher's blocks is truncated, and training goes on from there. RoIs are the cells of the grid, and stay there.

Legend: B batch, N latent tokens, D width, R prefix tokens (class token and registers), P side of a patch in pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.config import BlockConfig, CortexConfig, GridConfig, ReadOutConfig
from sparseformers.model.cortex import PrefixTokens
from sparseformers.model.front import FrontOutput
from sparseformers.model.layers import build_norm


class CellEmbedding(nn.Module):
    """The teacher's patch and position embedding."""

    def __init__(self, config: GridConfig | ReadOutConfig, block: BlockConfig) -> None:
        super().__init__()
        width = block.width
        self.weight = nn.Parameter(torch.zeros(width, 3, config.patch_size, config.patch_size))
        self.bias = nn.Parameter(torch.zeros(width)) if config.patch_bias else None
        self.norm = build_norm(block) if config.patch_norm else nn.Identity()
        self.positions = nn.Parameter(torch.zeros(width, *config.grid))

    def forward(self, patches: Tensor, rois: Tensor) -> Tensor:
        """Patches B x N x 3 x P x P and their RoIs B x N x 4 -> tokens B x N x D."""
        return self.norm(F.linear(patches.flatten(2), self.weight.flatten(1), self.bias)) + read_map(self.positions, rois)


class Resize(nn.Module):
    """Bilinear, antialiased resizing: a module of its own because exported files compute it in another way."""

    def forward(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """B x 3 x H x W -> B x 3 x h x w."""
        # Asked only where shapes are numbers: a graph for any size must not depend on this one.
        if not torch.compiler.is_compiling() and images.shape[-2:] == size:
            return images
        return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


class GridFront(nn.Module):
    """Cells of a coarse grid as the tokens of a teacher with blocks and prefix tokens as in ``cortex``."""

    cells: Tensor

    def __init__(self, config: GridConfig, cortex: CortexConfig) -> None:
        super().__init__()
        width = cortex.block.width
        self.patch_size, self.aspect = config.patch_size, config.aspect
        self.register_buffer("cells", roi_arithmetic.cells(config.tokens, config.aspect), persistent=False)
        self.resize: nn.Module = Resize()
        self.embedding = CellEmbedding(config, cortex.block)
        self.pre_norm = build_norm(cortex.block) if config.pre_norm else nn.Identity()
        self.prefix = PrefixTokens(cortex.prefix_tokens, width) if cortex.prefix_tokens else nn.Identity()

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """Normalised images B x 3 x H x W -> prefix and latent tokens B x (R+N) x D, with the RoIs of the N latent ones."""
        cells = self.cells if tokens in (None, len(self.cells)) else self.cells_of(tokens)
        rois = cells.expand(images.shape[0], -1, -1)  # B x N x 4
        rows, columns = roi_arithmetic.grid_of(len(cells), self.aspect)
        # Only where all rows have as many cells are these the patches of an image.
        read = self.cut_patches if rows * columns == len(cells) else self.sample_patches
        latent = self.pre_norm(self.embedding(read(images.float(), rois), rois))  # B x N x D
        points = roi_arithmetic.regular_points(rois, self.patch_size)  # B x N x P² x 2
        return FrontOutput(self.prefix(latent), rois.unsqueeze(1), (points,), fixed_rois=True)

    def cells_of(self, tokens: int) -> Tensor:
        """The cells of N tokens, N x 4."""
        return roi_arithmetic.cells(tokens, self.aspect).to(self.cells.device)

    def at_resolution(self, images: Tensor, tokens: int, scale: float = 1.0) -> Tensor:
        """Images B x 3 x H x W resized so that a cell of N has P pixels a side, times ``scale``."""
        height, width = (round(cells * self.patch_size * scale) for cells in roi_arithmetic.grid_of(tokens, self.aspect))
        resized: Tensor = self.resize(images, (height, width))
        return resized

    def cut_patches(self, images: Tensor, rois: Tensor) -> Tensor:
        """Images B x 3 x H x W and the cells B x N x 4 of a grid whose rows are alike -> patches B x N x 3 x P x P."""
        return cut_patches(self.at_resolution(images, rois.shape[1]), self.patch_size)

    def sample_patches(self, images: Tensor, rois: Tensor) -> Tensor:
        """Images B x 3 x H x W and any RoIs B x N x 4 -> patches B x N x 3 x P x P, without aliasing.

        Each is sampled at the two nearest to its own of three resolutions (Williams, "Pyramidal parametrics", 1983): that of the
        grid, half of it and twice as much.
        """
        points = 2 * roi_arithmetic.regular_points(rois, self.patch_size) - 1  # B x N x P² x 2
        _, size = roi_arithmetic.centre_and_size(rois)
        area = (size.prod(dim=-1) * rois.shape[1]).clamp(min=1e-12)  # B x N, in cells
        octave = (-0.5 * area.log() / math.log(2)).clamp(-1, 1)[:, None, :, None]  # by which it is finer than the grid
        pixels = torch.zeros((), device=rois.device)
        for own in (-1, 0, 1):
            resized = self.at_resolution(images, rois.shape[1], 2.0**own)
            read = F.grid_sample(resized, points, mode="bilinear", padding_mode="border", align_corners=False)  # B x 3 x N x P²
            pixels = pixels + (1 - (octave - own).abs()).clamp(min=0) * read
        return pixels.transpose(1, 2).unflatten(-1, (self.patch_size, self.patch_size))


def cut_patches(images: Tensor, side: int) -> Tensor:
    """Images B x 3 x H x W of whole patches -> these, row by row: B x N x 3 x side x side."""
    patches = images.unflatten(2, (-1, side)).unflatten(4, (-1, side))
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def read_map(position_map: Tensor, rois: Tensor) -> Tensor:
    """A map D x rows x columns over the image at the centres of RoIs B x N x 4: B x N x D, float32.

    Bilinear between its entries; outside of it its border goes on.
    """
    centre, _ = roi_arithmetic.centre_and_size(rois)
    at = (2 * centre - 1).unsqueeze(2)  # B x N x 1 x 2
    maps = position_map.float().expand(rois.shape[0], -1, -1, -1)
    read = F.grid_sample(maps, at, mode="bilinear", padding_mode="border", align_corners=False)  # B x D x N x 1
    return read.squeeze(-1).transpose(1, 2)
