"""The mixed-resolution front, beyond the papers: small RoIs where the image says something, large ones elsewhere.

It starts from a few large cells and splits those that a small learnt map, of what the teacher would attend to, gives the largest
shares, until there are N leaves (a quadtree, as in Ronen et al., "Vision Transformers with Mixed-Resolution Tokenization", 2023).
Each leaf is read as one patch of the teacher at its own scale, and blocks are told its size (``SizeTokens``). A flat map splits
all cells alike: a new student *is* its teacher on a smaller image, and differs from it only as its map learns where to look.

Legend: B batch, N latent tokens (leaves), G cells of the glance, L levels of splits, D width, R prefix tokens, P side of a patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.config import BlockConfig, CortexConfig, MixedResolutionConfig
from sparseformers.model.cortex import PrefixTokens
from sparseformers.model.front import FrontOutput
from sparseformers.model.grid import Resize
from sparseformers.model.layers import build_norm
from sparseformers.model.quadtree import Quadtree
from sparseformers.model.selector import Selector


class MixedCellEmbedding(nn.Module):
    """The teacher's patch embedding, and its positions in cells of all levels."""

    def __init__(self, config: MixedResolutionConfig, block: BlockConfig, tree: Quadtree) -> None:
        super().__init__()
        width = block.width
        self.weight = nn.Parameter(torch.zeros(width, 3, config.patch_size, config.patch_size))
        self.bias = nn.Parameter(torch.zeros(width)) if config.patch_bias else None
        self.norm = build_norm(block) if config.patch_norm else nn.Identity()
        self.positions = nn.Parameter(torch.zeros(len(tree.cells), width))

    def forward(self, patches: Tensor, cells: Tensor) -> Tensor:
        """Patches B x N x 3P² and the numbers of their cells (N or B x N) -> tokens B x N x D."""
        return self.norm(F.linear(patches, self.weight.flatten(1), self.bias)) + self.positions[cells]


class MixedResolutionFront(nn.Module):
    """Cells of several sizes as the tokens of a teacher with blocks and prefix tokens as in ``cortex``."""

    def __init__(self, config: MixedResolutionConfig, cortex: CortexConfig) -> None:
        super().__init__()
        width = cortex.block.width
        self.config, self.patch_size = config, config.patch_size
        self.tree = Quadtree(config.start, config.levels)
        self.resize: nn.Module = Resize()
        self.embedding = MixedCellEmbedding(config, cortex.block, self.tree)
        self.pre_norm = build_norm(cortex.block) if config.pre_norm else nn.Identity()
        self.prefix = PrefixTokens(cortex.prefix_tokens, width) if cortex.prefix_tokens else nn.Identity()
        glance, map_grid = self.tree.grids[config.glance], self.tree.map_grid
        self.selector = Selector(width, config.channels, glance=glance, map_grid=map_grid)

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """Normalised images B x 3 x H x W -> prefix and latent tokens B x (R+N) x D, RoIs from the start cells to the leaves, and
        the map that they were split by; raises ValueError for an N that the start and whole splits do not give.
        """
        patches = self.patches(images.float())
        shares = self.shares(patches)
        leaves = self.leaves(self.perturbed(shares) if self.training else shares, tokens)
        return FrontOutput(*self.read(patches, leaves), shares)

    def patches(self, images: Tensor) -> list[Tensor]:
        """Images B x 3 x H x W -> the pixels of the cells of each level, as :meth:`cut` gives them."""
        return [self.cut(images, level) for level in range(len(self.tree.grids))]

    def cut(self, images: Tensor, level: int) -> Tensor:
        """Images B x 3 x H x W -> the pixels of a level's cells at its resolution: a view B x rows x columns x 3 x P x P."""
        side, (rows, columns) = self.patch_size, self.tree.grids[level]
        resized = self.resize(images, (rows * side, columns * side))
        cut = resized.unflatten(2, (-1, side)).unflatten(4, (-1, side))  # B x 3 x rows x P x columns x P
        return cut.permute(0, 2, 4, 1, 3, 5)

    def shares(self, patches: list[Tensor]) -> Tensor:
        """The map: the share of the teacher's attention that the selector expects in each part, B x h x w, float32."""
        return self.selector(*self.glance(patches)).exp()

    def glance(self, patches: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What the selector, which alone learns from the map, sees of the patches of all levels: tokens B x G x D, and detail."""
        level = self.config.glance
        cells = torch.arange(*self.tree.first[level : level + 2], device=patches[level].device)
        pixels = patches[level].flatten(1, 2).flatten(2)  # B x G x 3P²
        return self.pre_norm(self.embedding(pixels, cells)).detach(), self.selector.detail_of(patches[level + 1])

    def perturbed(self, shares: Tensor) -> Tensor:
        """Shares with Gumbel noise on their logarithms in a part of the images, so that the network knows other tilings, too."""
        noisy = shares / torch.empty_like(shares).exponential_()
        chosen = torch.rand(shares.shape[0], 1, 1, device=shares.device) < self.config.perturbation
        return torch.where(chosen, noisy, shares)

    def leaves(self, shares: Tensor, tokens: int | None = None) -> Tensor:
        """The cells that a map B x h x w splits the image into, B x N; raises as :meth:`forward`."""
        claims = self.tree.claims(shares.detach(), self.config.sharpness)
        return self.tree.leaves(claims, self.config.splits_for(tokens))

    def read(self, patches: list[Tensor], leaves: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor]]:
        """Leaves B x N, of the patches of all levels, as tokens B x (R+N) x D, RoIs and sampling points."""
        pixels = self.pixels(patches, leaves)
        latent = self.pre_norm(self.embedding(pixels, leaves))  # B x N x D
        rois = self.tree.stages(leaves)  # B x (L+1) x N x 4
        points = roi_arithmetic.regular_points(rois[:, -1], self.patch_size)  # B x N x P² x 2
        return self.prefix(latent), rois, (points,)

    def pixels(self, patches: list[Tensor], leaves: Tensor) -> Tensor:
        """The pixels of leaves B x N at their levels: B x N x 3P².

        For each leaf a cell of every level is read, which is less than all cells of the finest one.
        """
        image = torch.arange(leaves.shape[0], device=leaves.device).unsqueeze(1)  # B x 1
        rows, columns = self.tree.places[:, :, leaves]  # (L+1) x B x N each
        read = [cut[image, rows[level], columns[level]].flatten(2) for level, cut in enumerate(patches)]  # B x N x 3P² each
        chosen = self.tree.level[leaves][:, :, None, None].expand(-1, -1, 1, read[0].shape[-1])
        return torch.stack(read, dim=2).gather(2, chosen).squeeze(2)
