"""Positions in attention: rotary arithmetic and relative bias, as functions of places."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import RotaryEmbeddingCat, RotaryEmbeddingDinoV3, RotaryEmbeddingMixed, apply_rot_embed_cat
from timm.models.beit import RelativePositionBias
from torch import Tensor
from torch.testing import assert_close

from sparseformers.config import BlockConfig, CortexConfig, MixedResolutionConfig, RelativeConfig, RotaryConfig
from sparseformers.errors import ConfigError
from sparseformers.model.block import Attention, PostNormBlock, TransformerBlock, build_block
from sparseformers.model.cortex import build_cortex
from sparseformers.model.positions import SCALE, Places, RelativePositions, RotaryPositions, rotate
from sparseformers.rois import cells, grid_of
from sparseformers.teachers.timm_positions import frequencies, table_on
from tests.model.small import scattered

BLOCK = BlockConfig(width=32, heads=2, feed_forward_width=48)


def rotary(prefix_tokens: int = 0, values: Tensor | None = None, **options: Any) -> RotaryPositions:
    positions = RotaryPositions(RotaryConfig(**options), BLOCK, prefix_tokens)
    torch.manual_seed(0)
    positions.frequencies.copy_(torch.randn(positions.frequencies.shape) if values is None else values)
    return positions


def grid(rows: int, columns: int) -> Tensor:
    """The cells of a grid, 1 x N x 4."""
    assert grid_of(rows * columns, rows / columns) == (rows, columns)
    return cells(rows * columns, rows / columns)[None]


@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(0, 2**16))
def test_rotation_keeps_lengths__and_of_two_places_the_difference_alone_counts(dx: float, dy: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, 2, 2, 16, generator=generator)
    rois = torch.rand(1, 2, 4, generator=generator)
    positions = rotary(coordinates="image")
    (places,), (moved,) = positions(rois), positions(rois + torch.tensor([dx, dy, dx, dy]))
    assert places.rotation is not None
    assert moved.rotation is not None
    assert_close(rotate(query, places.rotation).norm(dim=-1), query.norm(dim=-1), atol=1e-5, rtol=1e-5)
    here = rotate(query, places.rotation) @ rotate(key, places.rotation).mT
    there = rotate(query, moved.rotation) @ rotate(key, moved.rotation).mT
    assert_close(here, there, atol=1e-3, rtol=1e-3)
    assert_close(rotate(query.bfloat16(), places.rotation), rotate(query, places.rotation).bfloat16(), atol=0.1, rtol=0.1)


HOSTS: dict[str, Any] = {
    "EVA-02": (RotaryEmbeddingCat(16, feat_shape=[3, 5], in_pixels=False, ref_feat_shape=[4, 4]), {"reference": (4, 4)}),
    "Perception Encoder": (
        RotaryEmbeddingCat(16, feat_shape=[3, 5], in_pixels=False, ref_feat_shape=[2, 7], grid_offset=1.0, grid_indexing="xy"),
        {"reference": (2, 7), "offset": 1.0},
    ),
    "ROPE-ViT": (RotaryEmbeddingCat(16, feat_shape=[3, 5], in_pixels=False, temperature=100.0, grid_indexing="xy"), {}),
    "DINOv3": (RotaryEmbeddingDinoV3(16, feat_shape=[3, 5]), {"coordinates": "image"}),
}


@pytest.mark.parametrize("host", HOSTS)
def test_rotary__turns_as_the_host_does_at_the_cells_of_a_grid(host: str) -> None:
    rope, options = HOSTS[host]
    positions = rotary(3, frequencies(rope), aspect=3 / 5, **options)
    (places,) = positions(grid(3, 5))
    assert places.rotation is not None
    half = host == "DINOv3"
    x = torch.randn(2, 2, 3 + 15, 16)
    theirs = torch.cat([x[:, :, :3], apply_rot_embed_cat(x[:, :, 3:], rope.get_embed(), half=half)], dim=2)
    order = torch.arange(16) if half else torch.cat([torch.arange(0, 16, 2), torch.arange(1, 16, 2)])
    assert_close(rotate(x[..., order], places.rotation), theirs[..., order], atol=2e-6, rtol=1e-5)


def test_rotary__mixed_has_frequencies_of_each_block_and_head() -> None:
    rope = RotaryEmbeddingMixed(32, depth=3, num_heads=2, feat_shape=[3, 5], grid_indexing="xy")
    positions = rotary(values=frequencies(rope), aspect=3 / 5, blocks=3, heads=2)
    places = positions(grid(3, 5))
    x = torch.randn(1, 2, 15, 16)
    order = torch.cat([torch.arange(0, 16, 2), torch.arange(1, 16, 2)])
    for each, embedding in zip(places, rope.get_embed(), strict=True):
        assert each.rotation is not None
        theirs = apply_rot_embed_cat(x, embedding)
        assert_close(rotate(x[..., order], each.rotation), theirs[..., order], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("prefix_tokens", [0, 1])
def test_relative__is_the_hosts_bias_at_the_cells_of_a_grid(prefix_tokens: int) -> None:
    host = RelativePositionBias((3, 5), num_heads=2)
    torch.nn.init.normal_(host.relative_position_bias_table)
    positions = RelativePositions(RelativeConfig(grid=(3, 5)), BLOCK, prefix_tokens)
    table, prefix = table_on(host, (3, 5))
    with torch.no_grad():
        positions.table.copy_(table[None])
        if positions.prefix_bias is not None:
            positions.prefix_bias.copy_(prefix[None])
    (places,) = positions(grid(3, 5))
    assert places.bias is not None
    assert_close(places.bias[0], host()[:, 1 - prefix_tokens :, 1 - prefix_tokens :], atol=1e-5, rtol=1e-5)


def test_relative__is_read_between_its_entries__and_outside_its_border_goes_on() -> None:
    positions = RelativePositions(RelativeConfig(grid=(1, 3)), BLOCK, 0)
    with torch.no_grad():
        positions.table.copy_(torch.tensor([-2.0, -1, 0, 1, 2]).expand(1, 2, 1, 5))
    x = torch.tensor([0.0, 0.25, 3.0])
    (places,) = positions(torch.stack([x - 0.1, torch.zeros(3), x + 0.1, torch.ones(3)], dim=-1)[None])
    assert places.bias is not None
    expected = torch.tensor([[0, -0.75, -2], [0.75, 0, -2], [2, 2, 0]])
    assert_close(places.bias[0, 0], expected)


def test_attention_weights_are_those_of_its_kernel__with_rotation_and_bias() -> None:
    attention = scattered(Attention(BLOCK), scale=0.3)
    x = torch.randn(2, 5, 32)
    angles = torch.randn(1, 1, 5, 8)
    for places in (Places((angles.cos(), angles.sin())), Places(bias=torch.randn(1, 2, 5, 5))):
        _, _, value = attention.query_key_value(x)
        assert_close(attention.join(attention.weights(x, places) @ value), attention(x, places), atol=1e-5, rtol=1e-5)
        assert_close(attention.weights(x, places, queries=1), attention.weights(x, places)[:, :, :1])
        assert (attention(x, places) - attention(x)).abs().max() > 0.01


def test_a_post_norm_block_norms_what_its_branches_give() -> None:
    block = build_block(BlockConfig(width=32, heads=2, feed_forward_width=48, post_norm=True, norm="rms"))
    scattered(block, scale=0.3)
    assert isinstance(block, PostNormBlock)
    assert type(build_block(BLOCK)) is TransformerBlock
    x = torch.randn(2, 5, 32)
    half = x + block.norm1(block.attn(x))
    assert_close(block(x), half + block.norm2(block.mlp(half)))
    assert_close(block.attention(x), block.attn.weights(x))


def test_a_cortex_gives_each_block_its_own_places() -> None:
    config = RotaryConfig(blocks=3, heads=2)
    cortex = build_cortex(CortexConfig(block=BLOCK, depth=3, positions=config)).eval()
    scattered(cortex, scale=0.3)
    torch.nn.init.normal_(cortex.positions.frequencies)
    tokens, rois = torch.randn(2, 4, 32), grid(2, 2)
    expected = cortex.prefix(tokens)
    for block, places in zip(cortex.blocks, cortex.positions(rois), strict=True):
        expected = block(expected, places)
    assert_close(cortex(tokens, rois).tokens, cortex.norm(expected))
    moved = rois.clone()
    moved[0, 0, [0, 2]] += 0.2
    assert not torch.allclose(cortex(tokens, moved).tokens, cortex.norm(expected))


def test_blocks_are_told_how_large_rois_are() -> None:
    front = MixedResolutionConfig(tokens=9, start=(3, 2), levels=2)
    cortex = build_cortex(CortexConfig(block=BLOCK, depth=3, prefix_tokens=1), front).eval()
    scattered(cortex, scale=0.3)
    assert cortex.sizes is not None
    # A cell of each level, in an image of any shape: start cells are a third of its height.
    heights = torch.tensor([1 / 3, 1 / 6, 1 / 12, 1 / 3])
    rois = torch.stack([0 * heights, 0 * heights, 1.5 * heights, heights], dim=1)[None]
    expected = tokens = cortex.prefix(torch.randn(2, 4, 32))
    for block, sizes, places in zip(cortex.blocks, cortex.sizes.tokens, cortex.places(rois), strict=True):
        told = torch.cat([expected[:, :1], expected[:, 1:] + SCALE * sizes[[0, 1, 2, 0]]], dim=1)
        assert_close(block.attention(expected, places), block.attention(told))
        expected = block(told)
    assert_close(cortex(tokens[:, 1:], rois).tokens, cortex.norm(expected))


def test_impossible_configurations() -> None:
    with pytest.raises(ConfigError, match="Positions are for all 3 blocks or shared, not for 2"):
        CortexConfig(block=BLOCK, depth=3, positions=RotaryConfig(blocks=2))
    with pytest.raises(ConfigError, match="needs a class token and a distillation token"):
        CortexConfig(block=BLOCK, depth=3, distilled=True)
