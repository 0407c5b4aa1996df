import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from sparseformers import rois

SIDES = st.floats(-0.5, 1.5, width=32)
BOXES = st.lists(st.tuples(SIDES, SIDES, SIDES, SIDES), min_size=1, max_size=6).map(torch.tensor)
SMALL = st.floats(-1.0, 1.0, width=32)
SEEDS = st.integers(0, 2**31 - 1)


def random_offsets(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ordered(boxes: Tensor) -> Tensor:
    """The same boxes with x1 <= x2 and y1 <= y2."""
    near, far = boxes[..., :2], boxes[..., 2:]
    return torch.cat([torch.minimum(near, far), torch.maximum(near, far)], dim=-1)


def test_grids_of_up_to_200_tokens() -> None:
    pixels = (torch.arange(32) + 0.5) / 32
    for tokens in range(1, 201):
        boxes = rois.initial_grid(tokens)
        assert boxes.shape == (tokens, 4)
        assert boxes.dtype == torch.float32
        assert boxes.min() >= 0
        assert boxes.max() <= 1
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        across = (boxes[:, 0:1] <= pixels) & (pixels <= boxes[:, 2:3])  # N x 32
        down = (boxes[:, 1:2] <= pixels) & (pixels <= boxes[:, 3:4])  # N x 32
        assert (down[:, :, None] & across[:, None, :]).any(dim=0).all(), tokens  # the image is covered
        lengths = rois.row_lengths(tokens)
        assert sum(lengths) == tokens
        assert max(lengths) - min(lengths) <= 1
        assert max(lengths) <= 2 * len(lengths)


def test_row_lengths_and_grids_of_one_token_and_of_none() -> None:
    expected = {1: [1], 2: [2], 4: [2, 2], 7: [2, 3, 2], 48: [8] * 6, 49: [7] * 7, 63: [9] * 7, 64: [8] * 8}
    assert {tokens: rois.row_lengths(tokens) for tokens in expected} == expected
    assert rois.initial_grid(1).tolist() == [[0, 0, 1, 1]]
    with pytest.raises(ValueError, match="at least one token, not 0"):
        rois.initial_grid(0)


def test_grid_of_48_is_six_rows_of_eight_half_image_boxes() -> None:
    boxes = rois.initial_grid(48).view(6, 8, 4)
    torch.testing.assert_close(boxes[..., 2:] - boxes[..., :2], torch.full((6, 8, 2), 0.5))
    torch.testing.assert_close(boxes[0, :, 0], torch.linspace(0, 0.5, 8))
    torch.testing.assert_close(boxes[:, 0, 1], torch.linspace(0, 0.5, 6))
    assert len(boxes.view(48, 4).unique(dim=0)) == 48


@given(BOXES)
def test_centre_and_size__order_the_corners_as_adjusting_by_nothing_does(boxes: Tensor) -> None:
    centre, size = rois.centre_and_size(boxes)
    assert (size >= 0).all()
    torch.testing.assert_close(rois.from_centre_and_size(centre, size), ordered(boxes), atol=1e-6, rtol=0)
    torch.testing.assert_close(rois.adjust(boxes, torch.zeros_like(boxes)), ordered(boxes), atol=1e-6, rtol=0)


@given(BOXES, SMALL, SMALL, SMALL, SMALL)
def test_adjusting_moves_and_scales_relative_to_the_box(boxes: Tensor, dx: float, dy: float, dw: float, dh: float) -> None:
    centre, size = rois.centre_and_size(boxes)
    adjusted = rois.adjust(boxes, torch.tensor([dx, dy, dw, dh]).expand_as(boxes))
    new_centre, new_size = rois.centre_and_size(adjusted)
    torch.testing.assert_close(new_centre, centre + torch.tensor([dx, dy]) * size, atol=2e-6, rtol=0)
    torch.testing.assert_close(new_size, size * torch.tensor([math.exp(dw), math.exp(dh)]), atol=5e-6, rtol=0)
    assert (adjusted[..., :2] <= adjusted[..., 2:]).all()


@given(SEEDS, st.integers(2, 40), st.floats(0.1, 100.0), st.floats(-5.0, 5.0))
def test_standardised_offsets_have_mean_0_and_spread_one_third(seed: int, points: int, scale: float, shift: float) -> None:
    offsets = rois.standardise(random_offsets(seed, 3, points, 2) * scale + shift)
    spread = (random_offsets(seed, 3, points, 2) * scale).std(dim=-2, unbiased=True)
    # The small number that keeps the division safe draws narrow spreads in a little.
    expected = spread / (3 * (spread + 1e-5))
    torch.testing.assert_close(offsets.mean(dim=-2), torch.zeros(3, 2), atol=2e-4, rtol=0)
    torch.testing.assert_close(offsets.std(dim=-2, unbiased=True), expected, atol=1e-3, rtol=1e-3)
    assert rois.standardise(torch.full((1, points, 2), 0.25)).abs().max() == 0  # equal ones all fall on the centre


@given(SEEDS, st.floats(0.5, 50.0), st.floats(-3.0, 3.0))
def test_points_do_not_depend_on_the_scale_and_shift_of_offsets(seed: int, scale: float, shift: float) -> None:
    boxes, offsets = rois.initial_grid(3)[None], random_offsets(seed, 1, 3, 9, 2)
    plain = rois.sampling_points(boxes, offsets)
    torch.testing.assert_close(rois.sampling_points(boxes, offsets * scale + shift), plain, atol=5e-4, rtol=0)


@given(SEEDS, SMALL, SMALL)
def test_points_move_and_scale_with_their_box(seed: int, dx: float, dy: float) -> None:
    boxes, offsets = rois.initial_grid(3)[None], random_offsets(seed, 1, 3, 9, 2)
    (centre, size), shift, scale = rois.centre_and_size(boxes), torch.tensor([dx, dy]), torch.tensor([0.5, 0.25])
    moved = rois.sampling_points(rois.from_centre_and_size(centre + shift, size * scale), offsets)
    from_centre = rois.sampling_points(boxes, offsets) - centre[..., None, :]
    torch.testing.assert_close(moved, (centre + shift)[..., None, :] + from_centre * scale, atol=1e-5, rtol=0)


@given(BOXES, st.sampled_from([8, 16, 64, 384]))
def test_position_encoding_is_the_formula_of_the_appendix(boxes: Tensor, width: int) -> None:
    count = width // 8
    angles = boxes.double()[..., None] * math.pi * 128.0 ** (torch.arange(count).double() / max(1, count - 1))  # N x 4 x count
    expected = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()
    # 128 pi magnifies float32's rounding.
    torch.testing.assert_close(rois.position_encoding(boxes, width), expected, atol=5e-4, rtol=0)


@given(BOXES)
def test_released_position_encoding_is_its_formula(boxes: Tensor) -> None:
    angles = boxes.double()[..., None] * math.pi * 128.0 ** (torch.arange(16).double() / 15)  # N x 4 x 16
    expected = torch.cat([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(1).float()
    torch.testing.assert_close(rois.released_position_encoding(boxes, 64), expected, atol=5e-4, rtol=0)


def test_operations_agree_with_the_authors(fixtures: Path) -> None:
    official = load_file(fixtures / "official_ops.safetensors")
    boxes = official["roi"]
    offsets = official["offset"].unflatten(-1, (9, 2))
    exact = {"atol": 1e-6, "rtol": 0}
    torch.testing.assert_close(rois.adjust(boxes, official["delta"]), official["adjusted"], **exact)
    torch.testing.assert_close(rois.sampling_points(boxes, offsets), official["points"].squeeze(2), **exact)
    torch.testing.assert_close(rois.released_position_encoding(boxes, 64), official["pe_official"], **exact)


def test_arithmetic_is_float32_whatever_comes_in_and_under_autocast() -> None:
    boxes = rois.initial_grid(5).bfloat16()[None]
    for result in (
        rois.adjust(boxes, torch.zeros(1, 5, 4, dtype=torch.bfloat16)),
        rois.standardise(torch.randn(1, 5, 9, 2).bfloat16()),
        rois.sampling_points(boxes, torch.randn(1, 5, 9, 2).bfloat16()),
        rois.position_encoding(boxes, 64),
        rois.released_position_encoding(boxes, 64),
        *rois.centre_and_size(boxes),
    ):
        assert result.dtype == torch.float32
    boxes, delta = rois.initial_grid(5)[None], torch.randn(1, 5, 4).bfloat16()
    expected = rois.adjust(boxes, delta.float())
    torch.testing.assert_close(rois.adjust(boxes, delta), expected, atol=0, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(rois.adjust(boxes, delta.float()), expected, atol=0, rtol=0)
