"""The inherited front: it starts as the teacher at a lower resolution, and then learns where to look.

Its tokens are made as the teacher makes them: the teacher's patch embedding of the pixels inside each RoI, plus the
teacher's position embedding at the RoI's centre. At the start the RoIs are the cells of a coarse grid, so that a new
student *is* its teacher on a smaller image, and training can only go on from there. Nothing is truncated. There may be
further looks: then the leading blocks stand here, and after each of them every token moves its RoI and looks again.

Beyond the papers, whose own fronts are in :mod:`sparseformers.model.focusing` and :mod:`sparseformers.model.original`.
Legend: B batch, N latent tokens, D width, R prefix tokens (class token and registers), P side of a patch in pixels.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.config import CortexConfig, GridConfig
from sparseformers.model.block import TransformerBlock
from sparseformers.model.cortex import PrefixTokens
from sparseformers.model.focusing import Focus
from sparseformers.model.position import read_map
from sparseformers.model.pyramid import ImagePyramid


class PatchTokens(nn.Module):
    """The teacher's way to make tokens, for patches that may lie anywhere.

    Args:
        config: of the front.
        width: D.
    """

    def __init__(self, config: GridConfig, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, 3, config.patch_size, config.patch_size))
        self.bias = nn.Parameter(torch.zeros(width)) if config.patch_bias else None
        self.positions = nn.Parameter(torch.zeros(width, *config.grid))

    def forward(self, patches: Tensor, rois: Tensor) -> Tensor:
        """Patches B x N x 3 x P x P and their RoIs B x N x 4 -> tokens B x N x D."""
        return F.linear(patches.flatten(2), self.weight.flatten(1), self.bias) + read_map(self.positions, rois)


class RoIStep(nn.Module):
    """A token moves its own RoI by at most ``bound`` of its size, and scales it by at most exp(``bound``).

    Tokens and RoIs come without their gradients, so the rough gradient of sampling coordinates trains this step alone, and
    neither the blocks before it nor the steps before it (as between the layers of Deformable DETR, Zhu et al., ICLR 2021).

    Args:
        width: D.
        bound: in (0, 1).
    """

    def __init__(self, width: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        hidden = width // 2
        self.delta = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 4, bias=False))

    def start(self) -> None:
        """RoIs stay where they are at first."""
        nn.init.zeros_(cast(nn.Linear, self.delta[-1]).weight)

    def forward(self, tokens: Tensor, rois: Tensor) -> Tensor:
        """Tokens B x N x D and RoIs B x N x 4 -> RoIs B x N x 4, float32."""
        delta = self.delta(tokens.detach()).float()
        return roi_arithmetic.adjust(rois.detach(), self.bound * delta.tanh())


class GridFront(nn.Module):
    """The front: patches of RoIs as the teacher's tokens, its first blocks, and a further look after each of them.

    Args:
        config: its sizes.
        cortex: the form of the teacher's blocks, and the prefix tokens.
    """

    cells: Tensor

    def __init__(self, config: GridConfig, cortex: CortexConfig) -> None:
        super().__init__()
        block, width = cortex.block, cortex.block.width
        self.prefix_tokens = cortex.prefix_tokens
        self.register_buffer("cells", roi_arithmetic.cells(config.tokens), persistent=False)
        self.pyramid = ImagePyramid(config.patch_size)
        self.embedding = PatchTokens(config, width)
        self.pre_norm = nn.LayerNorm(width, eps=block.norm_eps) if config.pre_norm else nn.Identity()
        self.prefix = PrefixTokens(cortex.prefix_tokens, width) if cortex.prefix_tokens else nn.Identity()
        self.blocks = nn.ModuleList(TransformerBlock(block) for _ in range(config.looks))
        self.steps = nn.ModuleList(RoIStep(width, config.bound) for _ in range(config.looks))
        for step in self.steps:
            cast(RoIStep, step).start()

    def forward(self, images: Tensor, tokens: int | None = None) -> Focus:
        """Looks at images.

        Args:
            images: B x 3 x H x W, normalised.
            tokens: N, if other than configured.

        Returns:
            Prefix and latent tokens B x (R+N) x D, with the RoIs of the latent ones.
        """
        own = tokens in (None, len(self.cells))
        cells = self.cells if own else roi_arithmetic.cells(cast(int, tokens)).to(self.cells.device)  # N x 4
        grid = roi_arithmetic.grid_of(len(cells))
        rois = cells.expand(images.shape[0], -1, -1)  # B x N x 4
        if grid[0] * grid[1] != len(cells):  # rows differ in length, so that no level has the cells as its patches
            levels = self.pyramid.levels(images, grid)
            seen, looked_at = self.look(levels, rois)  # B x N x D
        else:
            levels = self.pyramid.levels(images, grid) if self.blocks else [self.pyramid.level(images, grid)]
            seen, looked_at = self.first_look(levels[len(levels) // 2], rois)
        all_tokens = self.prefix(seen)  # B x (R+N) x D

        stage_rois, points = [rois], [looked_at]
        for block, step in zip(self.blocks, self.steps, strict=True):
            prefix, latent = block(all_tokens).split([self.prefix_tokens, rois.shape[1]], dim=1)
            rois = step(latent, rois)
            before, (seen, looked_at) = seen, self.look(levels, rois)
            # What a block gives is what it was given plus its own part: the difference puts the new patch in the old one's place.
            all_tokens = torch.cat([prefix, latent + (seen - before)], dim=1)
            stage_rois.append(rois)
            points.append(looked_at)
        return Focus(all_tokens, torch.stack(stage_rois, dim=1), tuple(points))

    def first_look(self, base: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`look` at cells that are patches of the base level B x 3 x h x w: they are cut out of it, and not sampled."""
        patches, points = self.pyramid.cells(base, rois)
        return self.pre_norm(self.embedding(patches, rois)), points

    def look(self, levels: list[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        """Levels of the pyramid and RoIs B x N x 4 -> tokens as the teacher would make them B x N x D, and where it read."""
        patches, points = self.pyramid(levels, rois)
        return self.pre_norm(self.embedding(patches, rois)), points
