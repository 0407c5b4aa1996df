"""Bipartite soft matching by hand, and against a slow one written with loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from benchmarks.baselines.matching import match, merge


def at_degrees(*degrees: float) -> Tensor:
    """One image's keys: vectors of the plane at these angles, of growing length."""
    angles = torch.tensor(degrees).deg2rad()
    return (torch.stack([angles.cos(), angles.sin()], dim=1) * torch.arange(1, len(degrees) + 1).unsqueeze(1))[None]


def test_by_hand() -> None:
    # First set 0, 40, 90; second set 44, 100, 200. Best partners: 44 (by 44), 44 (by 4), 100 (by 10).
    keys = at_degrees(0, 44, 40, 100, 90, 200)
    assert match(keys, 0).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert match(keys, 1).tolist() == [[0, 1, 1, 2, 3, 4]]
    assert match(keys, 2).tolist() == [[0, 1, 1, 2, 2, 3]]
    assert match(keys, 3).tolist() == [[0, 0, 0, 1, 1, 2]]


def test_leading_tokens_are_kept() -> None:
    keys = at_degrees(10, 10, 0, 44, 40, 100)
    assert match(keys, 1, kept=2).tolist() == [[0, 1, 2, 3, 3, 4]]
    assert match(keys, 2, kept=2).tolist() == [[0, 1, 2, 2, 2, 3]]


def test_tokens_of_one_set_never_meet_without_one_of_the_other() -> None:
    assert match(at_degrees(0, 90, 0, 91), 1).tolist() == [[0, 0, 1, 2]]


def test_no_more_than_half_can_be_merged() -> None:
    for count, kept in ((4, 0), (3, 2), (-1, 0)):
        with pytest.raises(ValueError, match=rf"of {7 - kept} tokens 0 to {(7 - kept) // 2} can be merged, not {count}"):
            match(torch.randn(1, 7, 3), count, kept=kept)


def slow_groups(keys: list[list[float]], count: int, kept: int) -> list[set[int]]:
    """The same by its definition, one image: which tokens end up together."""

    def cosine(i: int, j: int) -> float:
        return sum(a * b for a, b in zip(keys[i], keys[j], strict=True)) / math.hypot(*keys[i]) / math.hypot(*keys[j])

    first, second = range(kept, len(keys), 2), range(kept + 1, len(keys), 2)
    pairs = [(max(second, key=lambda j: cosine(i, j)), i) for i in first] if len(second) else []
    pairs = sorted(pairs, key=lambda pair: -cosine(*pair))[:count]
    gone = {i for _, i in pairs}
    return [{j} | {i for into, i in pairs if into == j} for j in range(len(keys)) if j not in gone]


@given(tokens=st.integers(1, 12), kept=st.integers(0, 3), share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_against_the_definition(tokens: int, kept: int, share: float, seed: int) -> None:
    keys = torch.randn(3, kept + tokens, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    count = int(share * (tokens // 2))
    groups = match(keys, count, kept=kept)
    for image in range(3):
        found = [set((groups[image] == group).nonzero().flatten().tolist()) for group in range(kept + tokens - count)]
        assert found == slow_groups(keys[image].tolist(), count, kept)


def test_merging_is_a_mean_by_size() -> None:
    tokens = torch.tensor([[[1.0, 0.0], [4.0, 2.0], [9.0, 9.0], [2.0, 8.0]]])
    merged, sizes = merge(tokens, torch.tensor([[1.0, 3.0, 1.0, 2.0]]), torch.tensor([[0, 0, 1, 0]]), 2)
    assert_close(merged, torch.tensor([[[(1 + 12 + 4) / 6, (0 + 6 + 16) / 6], [9.0, 9.0]]]))
    assert_close(sizes, torch.tensor([[6.0, 1.0]]))


@given(count=st.integers(0, 5), seed=st.integers(0, 1000))
def test_merging_keeps_the_sum(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens, sizes = torch.randn(2, 11, 4, generator=generator), torch.randint(1, 5, (2, 11), generator=generator).float()
    merged, totals = merge(tokens, sizes, match(tokens, count), 11 - count)
    assert merged.shape == (2, 11 - count, 4)
    assert_close((merged * totals.unsqueeze(-1)).sum(dim=1), (tokens * sizes.unsqueeze(-1)).sum(dim=1), atol=1e-4, rtol=1e-4)
    assert_close(totals.sum(dim=1), sizes.sum(dim=1))


def test_the_tokens_precision_stays() -> None:
    tokens = torch.randn(1, 4, 2, dtype=torch.bfloat16)
    merged, sizes = merge(tokens, torch.ones(1, 4), torch.tensor([[0, 1, 1, 2]]), 3)
    assert (merged.dtype, sizes.dtype) == (torch.bfloat16, torch.float32)
