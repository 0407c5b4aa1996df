import pytest
import torch

from sparseformers.evaluation import Drift, measure_drift
from sparseformers.evaluation.roi_measures import Elsewhere, coverage, foreground_share, overlap, point_density, sampled
from sparseformers.rois import cells, initial_grid, regular_points


def test_measure_drift__of_cells_that_stay_and_of_what_are_no_rois() -> None:
    drift = measure_drift(cells(16).expand(2, 1, -1, -1))
    assert drift == Drift(movement=0.0, step=0.0, size=0.25, size_change=1.0, coverage=1.0)
    with pytest.raises(ValueError, match="B x S x N x 4"):
        measure_drift(torch.rand(2, 4, 4))


def test_measure_drift__of_boxes_that_move_and_shrink() -> None:
    stages = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.3, 0.4, 0.7, 0.8], [0.4, 0.5, 0.6, 0.7]])
    drift = measure_drift(stages.view(1, 3, 1, 4))
    assert drift.movement == pytest.approx(0.5)
    assert drift.step == pytest.approx((0.5 + 0.0) / 2)
    assert drift.size == pytest.approx(0.2)
    assert drift.size_change == pytest.approx(0.5)
    assert drift.coverage == pytest.approx(0.04, abs=0.01)


def test_measure_drift__from_where_the_training_began() -> None:
    learnt = initial_grid(9) + 0.1
    rois = learnt.expand(2, 3, -1, -1)
    assert measure_drift(rois).movement == 0
    assert measure_drift(rois, initial_grid(9)).movement == pytest.approx(0.1 * 2**0.5)


def test_coverage__is_that_of_the_pixels_counted_once_and_overlap__what_is_counted_twice() -> None:
    left_half, top_half, outside = [0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 0.5], [1.5, 1.5, 2.0, 2.0]
    boxes = torch.tensor([[left_half, left_half], [left_half, top_half], [outside, outside]])
    assert coverage(boxes).tolist() == pytest.approx([0.5, 0.75, 0.0])
    assert overlap(boxes).tolist() == pytest.approx([0.5, 0.25, 0.0])
    assert overlap(cells(16)[None]).tolist() == [0.0]
    assert overlap(initial_grid(16)[None]).item() > 0.7
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 5, 2, 2, generator=generator).sort(dim=2).values.flatten(2)  # B x N x (x1, y1, x2, y2)
    fine = (torch.arange(500) + 0.5) / 500
    for boxes, share in zip(corners, coverage(corners), strict=True):
        inside = torch.zeros(500, 500, dtype=torch.bool)
        for x1, y1, x2, y2 in boxes:
            inside |= ((fine >= y1) & (fine <= y2))[:, None] & ((fine >= x1) & (fine <= x2))[None]
        assert float(share) == pytest.approx(float(inside.float().mean()), abs=0.02)


def test_sampled__counts_neighbourhoods_once_and_the_border_for_what_is_outside() -> None:
    rois = cells(9)[None]
    assert sampled(regular_points(rois, 4), rois).tolist() == [1.0]
    halves = rois * 0.5
    assert sampled(regular_points(halves, 4), halves).item() == pytest.approx(0.25, abs=0.02)
    rois = torch.tensor([[[0.0, 0.0, 0.4, 0.4]]])  # four points: each sees 0.1 to either side
    together = torch.full((1, 1, 4, 2), 0.5)
    assert sampled(together, rois).item() == pytest.approx(0.04, abs=0.01)
    apart = torch.tensor([[[[0.2, 0.2], [0.2, 0.8], [0.8, 0.2], [0.8, 0.8]]]])
    assert sampled(apart, rois).item() == pytest.approx(0.16, abs=0.02)
    outside = torch.tensor([[[[-4.0, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]]])
    assert sampled(outside, rois).item() == pytest.approx(0.04 + 0.02, abs=0.01)
    assert sampled(together, torch.full((1, 1, 4), 0.5)).item() > 0  # even a RoI of no size samples something


def test_point_density__counts_the_points_of_each_pixel_and_outside_at_the_border() -> None:
    points = torch.tensor([[[0.05, 0.1], [0.05, 0.1]], [[0.95, 0.6], [0.5, 0.99]]])[None]
    assert point_density(points, 2, 4).tolist() == [[[0.5, 0, 0, 0], [0, 0, 0.25, 0.25]]]
    points = torch.tensor([[[-3.0, 0.9], [1.0, 1.0], [0.3, -0.1], [7.0, 7.0]]])[None]
    assert point_density(points, 3, 3).tolist() == [[[0.25, 0, 0], [0, 0, 0], [0.25, 0, 0.5]]]


def test_foreground_share__of_points_that_are_spread_evenly_is_the_area_and_counts_those_on_the_object() -> None:
    steps = (torch.arange(40) + 0.5) / 40
    even = torch.cartesian_prod(steps, steps).view(1, 16, 100, 2)
    mask = torch.rand(1, 20, 20)
    share = foreground_share(point_density(even, 20, 20), mask)
    assert float(share) == pytest.approx(float(mask.mean()), rel=1e-5)
    mask = torch.zeros(2, 10, 10)
    mask[:, :5, :5] = 1
    points = torch.tensor([[[[0.1, 0.1], [0.4, 0.3]]], [[[0.1, 0.1], [0.6, 0.3]]]])
    assert foreground_share(point_density(points, 10, 10), mask).tolist() == [1.0, 0.5]


def test_elsewhere__is_the_mean_over_all_pairs_of_images_and_none_before_there_is_a_pair() -> None:
    densities, masks = torch.rand(5, 4, 6), torch.rand(5, 4, 6)
    densities /= densities.sum(dim=(1, 2), keepdim=True)
    elsewhere = Elsewhere()
    for first, last in ((0, 1), (1, 3), (3, 5)):
        assert (elsewhere.share() is None) == (first < 2)
        elsewhere.add(densities[first:last], masks[first:last])
    pairs = [float((densities[i] * masks[j]).sum()) for i in range(5) for j in range(5) if i != j]
    assert elsewhere.share() == pytest.approx(sum(pairs) / len(pairs))
