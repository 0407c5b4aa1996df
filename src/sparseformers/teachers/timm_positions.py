"""What timm's networks tell their attention of places: rotary embeddings of three kinds, tables and networks of differences."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from timm.layers import RelPosMlp, resize_rel_pos_bias_table
from torch import Tensor, nn

from sparseformers.config import RelativeConfig, RotaryConfig
from sparseformers.teachers.base import refuse

ROTARY = ("RotaryEmbeddingCat", "RotaryEmbeddingDinoV3", "RotaryEmbeddingMixed")
TABLE = "relative_position_bias_table"


def positions_config(network: Any, grid: tuple[int, int], name: str) -> RotaryConfig | RelativeConfig | None:
    """The positions in attention that a network calls for on a grid of rows and columns; raises TeacherError for unknown ones."""
    rope, holders = getattr(network, "rope", None), bias_holders(network, name)
    if rope is None:
        return RelativeConfig(grid=grid, blocks=len(holders)) if holders else None
    kind = type(rope).__name__
    centred = kind == "RotaryEmbeddingDinoV3"
    usual = {"in_pixels": False, "normalize_coords": "separate", **({"grid_offset": 0} if centred else {})}
    if kind not in ROTARY or any(getattr(rope, key, value) != value for key, value in usual.items()):
        raise refuse(name, f"its rotary positions ({kind}) are of a kind that is not known")
    blocks, heads = rope.freqs.shape[1:3] if kind == "RotaryEmbeddingMixed" else (1, 1)
    reference = getattr(rope, "ref_feat_shape", None)
    return RotaryConfig(
        coordinates="image" if centred else "cells",
        reference=None if reference is None else (int(reference[0]), int(reference[1])),
        offset=0.0 if centred else float(getattr(rope, "grid_offset", 0.0)),
        aspect=grid[0] / grid[1],
        blocks=blocks,
        heads=heads,
    )


def positions_state(network: Any, grid: tuple[int, int]) -> dict[str, Tensor]:
    """The weights of these positions under the names of :mod:`sparseformers.model.positions`."""
    if getattr(network, "rope", None) is not None:
        return {"frequencies": frequencies(network.rope)}
    if not (holders := bias_holders(network, "")):
        return {}
    tables, prefix = zip(*(table_on(holder, grid) for holder in holders), strict=True)
    return {"table": torch.stack(tables)} | ({"prefix_bias": torch.stack(prefix)} if network.num_prefix_tokens else {})


def frequencies(rope: Any) -> Tensor:
    """What a rotary embedding multiplies rows and columns with: blocks x 2 x heads x pairs of channels, float32."""
    rows_first = getattr(rope, "grid_indexing", "ij") == "ij"
    if type(rope).__name__ == "RotaryEmbeddingMixed":
        learnt = rope.freqs.detach().float().transpose(0, 1)
        return learnt if rows_first else learnt.flip(1)
    bands = rope.dim // 4
    if type(rope).__name__ == "RotaryEmbeddingDinoV3":
        each = 2 * math.pi / rope.periods.float().cpu()
    else:
        each = 1 / rope.temperature ** (torch.arange(bands, dtype=torch.float32) / bands)
    # The first half of the pairs grows with the first coordinate, the second half with the other one.
    of_first, of_second = torch.cat([each, torch.zeros(bands)]), torch.cat([torch.zeros(bands), each])
    both = [of_first, of_second] if rows_first else [of_second, of_first]
    return torch.stack(both).view(1, 2, 1, -1)


def bias_holders(network: Any, name: str) -> list[nn.Module]:
    """The modules that hold a relative bias: one of each block, or the one that all share, or none."""
    places = (getattr(network, place, None) for place in ("shared_rel_pos", "rel_pos_bias"))
    shared = [holder for holder in places if holder is not None]
    own = [holder for block in network.blocks if (holder := _holder_in(block.attn)) is not None]
    if shared and own:
        raise refuse(name, "its blocks have relative positions of their own and share others")
    return shared or own


def _holder_in(attention: Any) -> nn.Module | None:
    return attention if getattr(attention, TABLE, None) is not None else getattr(attention, "rel_pos", None)


@torch.no_grad()
def table_on(holder: Any, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The bias of each difference on a grid, heads x (2 rows - 1) x (2 columns - 1), and that with prefix tokens, heads x 3.
    As timm itself has it at another image size: a table is resampled, a network is asked again.
    """
    if isinstance(holder, RelPosMlp):
        hidden, of = holder.mlp.fc1.out_features, holder.pretrained_window_size
        on_grid = RelPosMlp(grid, num_heads=holder.num_heads, hidden_dim=hidden, mode=holder.mode, pretrained_window_size=of)
        on_grid.mlp = copy.deepcopy(holder.mlp).float()
        bias = on_grid.bias_act(on_grid.eval().mlp(on_grid.rel_coords_log.float())) * (on_grid.bias_gain or 1)
        return bias.permute(2, 0, 1), torch.zeros(holder.num_heads, 3)
    table, own = getattr(holder, TABLE).float(), tuple(holder.window_size)
    extra, shape = len(table) - math.prod(2 * side - 1 for side in own), tuple(2 * side - 1 for side in grid)
    if own != grid:
        new_shape = math.prod(shape) + extra, table.shape[1]
        known = {} if own[0] == own[1] else {"old_window_size": own}  # which not all versions of timm take
        table = resize_rel_pos_bias_table(table, new_window_size=grid, new_bias_shape=new_shape, **known)
    differences = table[: math.prod(shape)].T.unflatten(1, shape)
    return differences, table[-3:].T if extra else torch.zeros(table.shape[1], 3)
