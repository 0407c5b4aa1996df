from __future__ import annotations

import pytest
import torch

from sparseformers.evaluation.localisation import Elsewhere, foreground_share, point_density


def test_point_density__counts_the_points_of_each_pixel() -> None:
    points = torch.tensor([[[0.05, 0.1], [0.05, 0.1]], [[0.95, 0.6], [0.5, 0.99]]])[None]
    expected = torch.zeros(1, 2, 4)
    expected[0, 0, 0], expected[0, 1, 3], expected[0, 1, 2] = 0.5, 0.25, 0.25
    torch.testing.assert_close(point_density(points, 2, 4), expected)


def test_point_density__outside_is_at_the_border() -> None:
    points = torch.tensor([[[-3.0, 0.9], [1.0, 1.0], [0.3, -0.1], [7.0, 7.0]]])[None]
    density = point_density(points, 3, 3)
    assert density[0, 2, 0] == 0.25
    assert density[0, 2, 2] == 0.5
    assert density[0, 0, 0] == 0.25
    assert density.sum() == 1


def test_foreground_share__of_points_that_are_spread_evenly_is_the_area() -> None:
    steps = (torch.arange(40) + 0.5) / 40
    even = torch.cartesian_prod(steps, steps).view(1, 16, 100, 2)
    mask = torch.rand(1, 20, 20)
    share = foreground_share(point_density(even, 20, 20), mask)
    assert float(share) == pytest.approx(float(mask.mean()), rel=1e-5)


def test_foreground_share__of_points_on_and_off_the_object() -> None:
    mask = torch.zeros(2, 10, 10)
    mask[:, :5, :5] = 1
    points = torch.tensor([[[[0.1, 0.1], [0.4, 0.3]]], [[[0.1, 0.1], [0.6, 0.3]]]])
    assert foreground_share(point_density(points, 10, 10), mask).tolist() == [1.0, 0.5]


def test_elsewhere__is_the_mean_over_all_pairs_of_images() -> None:
    densities, masks = torch.rand(5, 4, 6), torch.rand(5, 4, 6)
    densities /= densities.sum(dim=(1, 2), keepdim=True)
    elsewhere = Elsewhere()
    elsewhere.add(densities[:3], masks[:3])
    elsewhere.add(densities[3:], masks[3:])
    pairs = [float((densities[i] * masks[j]).sum()) for i in range(5) for j in range(5) if i != j]
    assert elsewhere.share() == pytest.approx(sum(pairs) / len(pairs))


def test_elsewhere__of_one_image_says_nothing() -> None:
    elsewhere = Elsewhere()
    assert elsewhere.share() is None
    elsewhere.add(torch.ones(1, 2, 2) / 4, torch.ones(1, 2, 2))
    assert elsewhere.share() is None
