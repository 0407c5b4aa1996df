"""Rank correlation, against textbook values and ranks by counting."""

from __future__ import annotations

import math

import pytest
import torch

from sparseformers.evaluation.correlation import rank_correlation, ranks


def test_equal_values_share_the_mean_of_their_places() -> None:
    assert ranks(torch.tensor([30.0, 10, 20, 20, 10, 10])).tolist() == [6, 2, 4.5, 4.5, 2, 2]


def test_a_textbook_case_without_ties() -> None:
    # 1 - 6 sum(d²) / (n (n² - 1)) with d = 0, 1, -1, 0, 0
    first, second = torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([0.1, 7, 5, 80, 9000])
    assert rank_correlation(first, second) == pytest.approx(1 - 6 * 2 / (5 * 24))


def test_with_ties_it_is_the_linear_correlation_of_ranks_by_counting() -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        maps = torch.randint(0, 6, (2, 4, 7), generator=generator)
        flat = maps.flatten(1)
        smaller = (flat[:, None, :] < flat[:, :, None]).sum(dim=-1)
        equal = (flat[:, None, :] == flat[:, :, None]).sum(dim=-1)
        expected = torch.corrcoef(smaller + (equal + 1) / 2)[0, 1]
        assert rank_correlation(maps[0], maps[1]) == pytest.approx(expected.item(), abs=1e-6)


def test_only_the_order_matters() -> None:
    values = torch.randn(3, 5)
    assert rank_correlation(values, values.exp()) == pytest.approx(1)
    assert rank_correlation(values, -(values**3)) == pytest.approx(-1)


@pytest.mark.parametrize("constant", [torch.zeros(4), torch.full((4,), math.nan)])
def test_without_an_order_there_is_no_correlation(constant: torch.Tensor) -> None:
    assert math.isnan(rank_correlation(constant, torch.arange(4.0)))
    assert math.isnan(rank_correlation(torch.arange(4.0), constant))


@pytest.mark.parametrize("second", [torch.zeros(5), torch.zeros(2, 2)])
def test_other_shapes_are_refused(second: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="two maps of one shape"):
        rank_correlation(torch.zeros(4), second)


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="two maps of one shape"):
        rank_correlation(torch.zeros(0), torch.zeros(0))
