import pytest
import torch
import torch.nn.functional as F

from sparseformers.model.selector import map_divergence, shares_on


def random_map(rows: int, columns: int) -> torch.Tensor:
    return (
        torch.rand(3, rows, columns, generator=torch.Generator().manual_seed(0))
        .flatten(1)
        .softmax(1)
        .unflatten(1, (rows, columns))
    )


class TestSharesOn:
    def test_whole_cells__are_sums(self) -> None:
        fine = random_map(6, 8)
        torch.testing.assert_close(shares_on(fine, (3, 2)), F.avg_pool2d(fine[:, None], (2, 4))[:, 0] * 8)

    @pytest.mark.parametrize("grid", [(4, 4), (5, 3), (20, 20)])
    def test_other_grids__keep_the_sum_and_spread_evenly(self, grid: tuple[int, int]) -> None:
        fine = random_map(7, 10)
        torch.testing.assert_close(shares_on(fine, grid).sum(dim=(1, 2)), torch.ones(3))
        flat = torch.full((1, 7, 10), 1 / 70)
        torch.testing.assert_close(shares_on(flat, grid), torch.full((1, *grid), 1 / (grid[0] * grid[1])))


class TestMapDivergence:
    def test_is_zero_for_the_same_map_on_a_finer_grid_and_positive_else(self) -> None:
        fine = random_map(8, 8)
        assert map_divergence(shares_on(fine, (4, 4)), fine).item() == pytest.approx(0, abs=1e-6)
        flat = torch.full((3, 4, 4), 1 / 16)
        wanted = shares_on(fine, (4, 4))
        expected = (wanted * (wanted * 16).log()).sum(dim=(1, 2)).mean()
        torch.testing.assert_close(map_divergence(flat, fine), expected)

    def test_a_share_of_zero__is_finite_with_a_finite_gradient(self) -> None:
        shares = torch.tensor([[[0.0, 1.0]]], requires_grad=True)
        loss = map_divergence(shares, torch.tensor([[[0.5, 0.5]]]))
        loss.backward()
        assert loss.isfinite()
        assert shares.grad is not None
        assert shares.grad.isfinite().all()
