"""What blocks are told of RoIs: rotary embedding and relative bias, as functions of their centres, and how large they are.

A teacher reads them off the indices of its patches. Here they are read at places, so that tokens may lie anywhere; at the cells
of a grid they are what the teacher has on that grid. A token has one place, its RoI's centre, however large the RoI is.

Legend: B batch (1 where RoIs are the same in all images), N latent tokens, R prefix tokens, T = R+N, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.config import BlockConfig, CortexConfig, MixedResolutionConfig, RelativeConfig, RotaryConfig
from sparseformers.rois import centre_and_size, grid_of


class Places(NamedTuple):
    """What one block is told of the RoIs of its tokens."""

    rotation: tuple[Tensor, Tensor] | None = None
    """Cosine and sine of the angles, each B x 1 x T x C/2 or B x heads x T x C/2, float32; prefix tokens are not turned."""
    bias: Tensor | None = None  # B x heads x T x T, float32: added to the logits of attention, queries by rows
    size: Tensor | None = None  # B x T x D: added to tokens as they enter the block

    def told(self, tokens: Tensor) -> Tensor:
        """Tokens B x T x D that know how large their RoIs are."""
        return tokens if self.size is None else tokens + self.size.to(tokens.dtype)


SCALE = 32.0  # of the tokens of sizes
NOWHERE = Places()  # for blocks whose tokens hold their positions themselves


class RotaryPositions(nn.Module):
    """Angles for queries and keys: a frequency times the row plus another one times the column (Su et al., RoFormer, 2021).

    Each pair of channels, the i-th of a head's first half and of its second, has frequencies of its own.
    """

    frequencies: Tensor

    def __init__(self, config: RotaryConfig, block: BlockConfig, prefix_tokens: int) -> None:
        super().__init__()
        self.config, self.prefix_tokens = config, prefix_tokens
        pairs = block.width // block.heads // 2
        self.register_buffer("frequencies", torch.zeros(config.blocks, 2, config.heads, pairs))  # of rows, of columns

    def forward(self, rois: Tensor) -> list[Places]:
        """RoIs B x N x 4 -> places for each block, or one for all."""
        row, column = self.coordinates(rois)
        of_rows, of_columns = self.frequencies.unsqueeze(3).unbind(1)  # blocks x heads x 1 x C/2 each
        places = []
        for index in range(self.config.blocks):
            angles = row[:, None, :, None] * of_rows[index] + column[:, None, :, None] * of_columns[index]
            angles = F.pad(angles, (0, 0, self.prefix_tokens, 0))  # B x heads x T x C/2
            places.append(Places(rotation=(angles.cos(), angles.sin())))
        return places

    def coordinates(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        """RoIs B x N x 4 -> the row and the column of their centres in the teacher's coordinates, B x N each, float32."""
        (x, y), sizes = centre_and_size(rois)[0].unbind(-1), grid_of(rois.shape[1], self.config.aspect)
        references = self.config.reference or (None, None)
        row, column = (self.along(*axis) for axis in zip((y, x), sizes, references, strict=True))
        return row, column

    def along(self, places: Tensor, cells: int, reference: int | None) -> Tensor:
        """Places in [0, 1] along an axis of so many cells -> the teacher's coordinates there."""
        if self.config.coordinates == "image":
            return 2 * places - 1
        counted = places * cells - 0.5 + self.config.offset
        return counted if reference is None else counted / cells * reference


class RelativePositions(nn.Module):
    """A bias for each head, read from a table of differences between places (bilinear between its entries)."""

    def __init__(self, config: RelativeConfig, block: BlockConfig, prefix_tokens: int) -> None:
        super().__init__()
        self.config, self.heads, self.prefix_tokens = config, block.heads, prefix_tokens
        rows, columns = config.grid
        self.table = nn.Parameter(torch.zeros(config.blocks, block.heads, 2 * rows - 1, 2 * columns - 1))
        # What a prefix token adds as it attends to a latent one, is attended to by one, and among prefix tokens.
        self.prefix_bias = nn.Parameter(torch.zeros(config.blocks, block.heads, 3)) if prefix_tokens else None

    def forward(self, rois: Tensor) -> list[Places]:
        """RoIs B x N x 4 -> places for each block, or one for all."""
        rows, columns = self.config.grid
        centres, _ = centre_and_size(rois)
        apart = centres.unsqueeze(2) - centres.unsqueeze(1)  # B x N x N x 2, of the query from the key
        x, y = apart.unbind(-1)
        # A difference of all cells but one is the table's last entry, 1 to grid_sample.
        at = torch.stack([x * (columns / max(1, columns - 1)), y * (rows / max(1, rows - 1))], dim=-1)
        tables = self.table.float().flatten(0, 1).expand(at.shape[0], -1, -1, -1)
        bias = F.grid_sample(tables, at, mode="bilinear", padding_mode="border", align_corners=True)
        bias = bias.unflatten(1, (self.config.blocks, self.heads))  # B x blocks x heads x N x N
        return [Places(bias=self.with_prefix(bias[:, index], index)) for index in range(self.config.blocks)]

    def with_prefix(self, bias: Tensor, index: int) -> Tensor:
        """The bias of a block among latent tokens B x heads x N x N -> among all B x heads x T x T."""
        if self.prefix_bias is None:
            return bias
        latent, prefix = bias.shape[-1], self.prefix_tokens
        kinds = self.prefix_bias[index].float().view(1, -1, 3, 1, 1).expand(bias.shape[0], -1, -1, -1, -1)
        attends, attended, among = kinds.unbind(2)  # B x heads x 1 x 1 each
        top = torch.cat([among.expand(-1, -1, prefix, prefix), attends.expand(-1, -1, prefix, latent)], dim=-1)
        rest = torch.cat([attended.expand(-1, -1, latent, prefix), bias], dim=-1)
        return torch.cat([top, rest], dim=-2)


class SizeTokens(nn.Module):
    """An embedding of a RoI's size for each block, from zero on, where RoIs of several sizes come of splits into four.

    One before the first block alone does not suffice: blocks that were the teacher's know tokens of one size
    (docs/lab/looking.md). Adam moves all numbers alike, and these have to move further: so they are kept at a scale.
    """

    edges: Tensor

    def __init__(self, front: MixedResolutionConfig, cortex: CortexConfig) -> None:
        super().__init__()
        self.prefix_tokens = cortex.prefix_tokens
        self.tokens = nn.Parameter(torch.zeros(cortex.depth, front.levels + 1, cortex.block.width))
        between = torch.arange(front.levels) + 0.5  # two levels each
        self.register_buffer("edges", 0.5**between / front.start[0], persistent=False)  # heights

    def forward(self, rois: Tensor, places: list[Places]) -> list[Places]:
        """RoIs B x N x 4, and what each block is told of their places -> what it is told of their sizes, too."""
        _, size = centre_and_size(rois)
        levels = (size[..., 1:] < self.edges).sum(dim=-1)  # B x N
        # Prefix tokens have no size: the first row of a table that has one more than there are levels. (No F.embedding:
        # a .onnx file would have two values named "embedding".)
        rows, tables = F.pad(levels + 1, (self.prefix_tokens, 0)), F.pad(SCALE * self.tokens, (0, 0, 1, 0))  # B x T
        return [each._replace(size=table[rows]) for each, table in zip(places, tables.unbind(), strict=True)]


def of_blocks(state: Mapping[str, Tensor], blocks: slice) -> dict[str, Tensor]:
    """The weights of positions for some of the blocks, where each has its own: they are the first dimension of all."""
    return {name: value[blocks] for name, value in state.items()}


def build_positions(config: RotaryConfig | RelativeConfig, block: BlockConfig, prefix_tokens: int) -> nn.Module:
    """The positions that the configuration means."""
    if isinstance(config, RotaryConfig):
        return RotaryPositions(config, block, prefix_tokens)
    return RelativePositions(config, block, prefix_tokens)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turns each pair of channels of queries or keys B x heads x T x C by its angle; lengths stay as they are."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)
