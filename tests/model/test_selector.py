import pytest
import torch
import torch.nn.functional as F

from sparseformers.model.selector import Selector, map_divergence, shares_on


def random_map(rows: int, columns: int) -> torch.Tensor:
    return torch.rand(3, rows * columns, generator=torch.Generator().manual_seed(0)).softmax(1).unflatten(1, (rows, columns))


def test_shares_on__whole_cells_are_sums__other_grids_keep_the_sum_and_spread_evenly() -> None:
    fine = random_map(6, 8)
    torch.testing.assert_close(shares_on(fine, (3, 2)), F.avg_pool2d(fine[:, None], (2, 4))[:, 0] * 8)
    fine, flat = random_map(7, 10), torch.full((1, 7, 10), 1 / 70)
    for rows, columns in ((4, 4), (5, 3), (20, 20)):
        torch.testing.assert_close(shares_on(fine, (rows, columns)).sum(dim=(1, 2)), torch.ones(3))
        torch.testing.assert_close(shares_on(flat, (rows, columns)), torch.full((1, rows, columns), 1 / (rows * columns)))


def test_map_divergence__is_zero_for_the_same_map_on_a_finer_grid_and_positive_else() -> None:
    fine = random_map(8, 8)
    wanted, flat = shares_on(fine, (4, 4)), torch.full((3, 4, 4), 1 / 16)
    assert map_divergence(wanted, fine).item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(map_divergence(flat, fine), (wanted * (wanted * 16).log()).sum(dim=(1, 2)).mean())


def test_map_divergence__of_a_share_of_zero_is_finite_with_a_finite_gradient() -> None:
    shares = torch.tensor([[[0.0, 1.0]]], requires_grad=True)
    loss = map_divergence(shares, torch.tensor([[[0.5, 0.5]]]))
    loss.backward()
    assert loss.isfinite()
    assert shares.grad is not None
    assert shares.grad.isfinite().all()


def test_detail__is_how_much_brightness_varies_in_each_quarter_and_moves_the_map() -> None:
    selector = Selector(8, 4, glance=(1, 2), map_grid=(2, 4))
    quarters = torch.zeros(1, 2, 4, 3, 6, 6)
    quarters[0, 1, 2, :, :3] = 0.5
    detail = selector.detail_of(quarters)
    torch.testing.assert_close(10 ** detail[0, 0, 1, 2], quarters[0, 1, 2, 0].var(correction=0) + 1e-4)
    assert (detail == torch.tensor(1e-4).log10()).sum() == 7  # all others are flat
    torch.nn.init.normal_(selector.out.weight)
    cells = torch.rand(1, 2, 8)
    assert not torch.allclose(selector(cells, detail), selector(cells, torch.full_like(detail, -4)))
