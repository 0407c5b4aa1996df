"""The read-out, beyond the papers: a map of the teacher's features, finer than the student's tokens.

A student has one token where its teacher has four or more, and spreading its tokens over the image (``splatting``) is all that it
can say of what lies between them. Here each place of the wanted grid asks the tokens. What it asks by is its spread token and the
teacher's own patch embedding of the pixels there: cheap, and it brings back what a coarse cell threw away. What the places are
told is added to the spread tokens, from zero on: a new read-out *is* the spread tokens.

Legend: B batch, T tokens with the prefix, N latent tokens, D width, h x w places of the grid, P side of a patch in pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.config import BlockConfig, CortexConfig, ReadOutConfig
from sparseformers.model.block import FeedForward
from sparseformers.model.grid import CellEmbedding, Resize, cut_patches
from sparseformers.model.layers import build_norm, start_linear

FARTHEST = 100.0
"""The largest squared distance of a place from a token, in sides of its RoI, so that RoIs of no size give numbers."""


class CrossAttention(nn.Module):
    """Multi-head attention from places to tokens, through PyTorch's fused kernel, in which nearer tokens may count for more.

    The logits of each head fall, by a factor that it learns, with the squared distance of the place from the middle of a token's
    RoI, in sides of the RoI. Prefix tokens are at no distance.
    """

    def __init__(self, block: BlockConfig) -> None:
        super().__init__()
        self.heads = block.heads
        self.q = nn.Linear(block.width, block.width)
        self.kv = nn.Linear(block.width, 2 * block.width)
        self.proj = nn.Linear(block.width, block.width)
        self.falls = nn.Parameter(torch.full((block.heads, 1, 1), 0.5))

    def forward(self, places: Tensor, tokens: Tensor, distances: Tensor) -> Tensor:
        """Places B x hw x D, tokens B x T x D, and their squared distances B x hw x T -> B x hw x D."""
        parts = (self.q(places), *self.kv(tokens).chunk(2, dim=-1))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        bias = -self.falls * distances.unsqueeze(1)  # B x heads x hw x T
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        # Heads side by side, whatever order the kernel keeps them in: exported files have another one than this machine.
        return self.proj(torch.cat(attended.unbind(1), dim=-1))


class ReadOutLayer(nn.Module):
    """Places ask the tokens, then each is by itself: a transformer block with cross-attention, whose branches start at zero."""

    def __init__(self, config: ReadOutConfig, block: BlockConfig) -> None:
        super().__init__()
        self.norm1, self.token_norm, self.norm2 = (build_norm(block) for _ in range(3))
        self.attn = CrossAttention(block)
        self.mlp = FeedForward(BlockConfig(width=block.width, heads=block.heads, feed_forward_width=config.hidden))
        self.apply(start_linear)
        nn.init.zeros_(self.attn.proj.weight)
        nn.init.zeros_(self.mlp.fc2.weight)

    def forward(self, places: Tensor, pixels: Tensor, tokens: Tensor, distances: Tensor) -> Tensor:
        """Places, and the embedding of their pixels, B x hw x D each; the others as for :class:`CrossAttention`."""
        places = places + self.attn(self.norm1(places) + pixels, self.token_norm(tokens), distances)
        return places + self.mlp(self.norm2(places) + pixels)


class ReadOut(nn.Module):
    """Places that ask a student's tokens for what the teacher, of blocks as in ``cortex``, has there."""

    def __init__(self, config: ReadOutConfig, cortex: CortexConfig) -> None:
        super().__init__()
        block = cortex.block
        self.layer, self.patch_size = config.layer, config.patch_size
        self.resize: nn.Module = Resize()
        self.embedding = CellEmbedding(config, block)
        self.pre_norm = build_norm(block) if config.pre_norm else nn.Identity()
        self.norm = build_norm(block)
        self.layers = nn.ModuleList(ReadOutLayer(config, block) for _ in range(config.layers))

    def forward(self, images: Tensor, tokens: Tensor, rois: Tensor, spread: Tensor) -> Tensor:
        """Normalised images B x 3 x H x W, final tokens B x T x D, the RoIs of the last N of them, B x N x 4 or 1 x N x 4, and
        the tokens of the layer that the map is of, put back on the image, B x D x h x w -> that map, B x D x h x w, float32.
        """
        rows, columns = spread.shape[-2:]
        cells = roi_arithmetic.cells(rows * columns, rows / columns).to(images.device).expand(images.shape[0], -1, -1)
        distances = F.pad(squared_distances(cells, rois), (tokens.shape[1] - rois.shape[1], 0))  # B x hw x T
        resized = self.resize(images.float(), (rows * self.patch_size, columns * self.patch_size))
        pixels = self.norm(self.pre_norm(self.embedding(cut_patches(resized, self.patch_size), cells)))  # B x hw x D
        places = spread.flatten(2).transpose(1, 2)
        for layer in self.layers:
            places = layer(places, pixels, tokens, distances)
        return places.float().transpose(1, 2).unflatten(-1, (rows, columns))


def squared_distances(cells: Tensor, rois: Tensor) -> Tensor:
    """From the middles of cells B x hw x 4 to those of RoIs B x N x 4, in sides of the RoIs: B x hw x N, at most ``FARTHEST``."""
    (places, _), (centres, sizes) = roi_arithmetic.centre_and_size(cells), roi_arithmetic.centre_and_size(rois)
    apart = (places.unsqueeze(2) - centres.unsqueeze(1)) / sizes.clamp_min(1e-3).unsqueeze(1)
    return apart.square().sum(dim=-1).clamp(max=FARTHEST)
