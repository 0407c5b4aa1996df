import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from sparseformers.model import SparseFormerOutput
from sparseformers.model.quadtree import Quadtree
from sparseformers.model.splatting import cell_weights, splat
from sparseformers.rois import cells, grid_of
from tests.exporting.students import FRONTS, student_of

CORNER = torch.tensor([0.0, 0.0, 0.25, 0.25])


def random_rois(*shape: int, seed: int = 0) -> Tensor:
    """RoIs of any size, some of them far outside of the image."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(*shape, 2, generator=generator) + 0.5
    size = torch.rand(*shape, 2, generator=generator) * 0.6
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def output_of(tokens: Tensor, rois: Tensor) -> SparseFormerOutput:
    """As a student's whose RoIs end there."""
    return SparseFormerOutput(tokens[:, 0], None, tokens, torch.stack([torch.zeros_like(rois), rois], dim=1), tokens)


def test_cells_of_the_grid_give_back_the_tokens() -> None:
    for tokens in (1, 4, 12, 15, 16, 48, 64):
        features = torch.randn(2, tokens, 5)
        grid = splat(features, cells(tokens).expand(2, -1, -1), grid_of(tokens))
        assert grid.shape == (2, 5, *grid_of(tokens))
        torch.testing.assert_close(grid.flatten(2).mT, features, atol=0.03, rtol=0)
        weights = cell_weights(cells(tokens)[None], *grid_of(tokens))[0].flatten(1)
        assert weights.diagonal().min() > 0.98


def test_between_cells_of_a_grid__it_is_bilinear_interpolation() -> None:
    for size in ((16, 16), (7, 9), (40, 33)):
        features = torch.randn(2, 64, 5)
        grid = splat(features, cells(64).expand(2, -1, -1), size)
        smooth = F.interpolate(features.mT.unflatten(2, (8, 8)), size, mode="bilinear", align_corners=False)
        torch.testing.assert_close(grid, smooth, atol=0.02, rtol=0)


def test_the_weights_of_a_cell_sum_to_1_wherever_rois_are() -> None:
    for tokens, size in itertools.product((1, 7, 16), ((1, 1), (3, 7), (16, 16), (5, 2))):
        weights = cell_weights(random_rois(3, tokens), *size)
        assert weights.shape == (3, tokens, *size)
        assert weights.min() >= 0
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(3, *size))


def test_a_cell_that_no_roi_covers_gets_the_nearest_tokens_features() -> None:
    # All look at the left upper corner, but for one in the right lower one that is much smaller, and one that is much wider.
    rois = torch.stack([CORNER, CORNER, CORNER + 0.75, torch.tensor([0.0, 0.0, 0.45, 0.45])])
    rois[2, :2] += 0.2
    weights = cell_weights(rois[None], 8, 8)[0]
    assert weights[2, 7, 7] > 0.99
    assert weights[2, 6, 6] > 0.95  # covered by none
    assert weights[2, 5, 5] > 0.8  # covered by none, nearer to the small one than to the wide one
    assert weights[3, 3, 3] > 0.95
    far = splat(torch.randn(1, 4, 3), rois[None] - 40, 4)
    assert far.isfinite().all()


def test_odd_rois_give_numbers() -> None:
    for degenerate in (torch.full((4,), 0.3), torch.tensor([0.8, 0.9, 0.2, 0.1]), torch.full((4,), 1e6)):
        rois = torch.stack([degenerate, *cells(3)]).unsqueeze(0).requires_grad_()
        grid = splat(torch.randn(1, 4, 3), rois, 6)
        grid.square().sum().backward()
        assert grid.isfinite().all()
        assert rois.grad.isfinite().all()


def test_a_small_roi_counts_for_more_than_a_large_one_around_it() -> None:
    rois = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.55, 0.55, 0.7, 0.7]]])
    weights = cell_weights(rois, 16, 16)[0]
    assert weights[1, 9, 9] > 0.8
    assert weights[0, 2, 2] > 0.9


def test_places_in_leaves_of_mixed_sizes_get_tokens_of_their_own_leaf_and_those_beside_it() -> None:
    tree = Quadtree((2, 2), 3)
    shares = (2 * torch.randn(4, 8, 8)).flatten(1).softmax(dim=1).unflatten(1, (8, 8))
    rois = tree.stages(tree.leaves(tree.claims(shares, 0.0), splits=20))[:, -1]
    assert len({round(side, 4) for side in (rois[..., 2] - rois[..., 0]).flatten().tolist()}) == 3
    middles = (torch.arange(16) + 0.5) / 16
    across = (rois[..., :1] <= middles) & (middles < rois[..., 2:3])  # B x N x 16
    down = (rois[..., 1:2] <= middles) & (middles < rois[..., 3:])
    inside = down.unsqueeze(3) & across.unsqueeze(2)
    assert torch.equal(inside.sum(dim=1), torch.ones(4, 16, 16, dtype=torch.int64))  # they tile the image
    weights = cell_weights(rois, 16, 16)
    sides = rois[..., 2:] - rois[..., :2]
    near = (((rois[..., :2] + rois[..., 2:]) / 2)[..., None] - middles).abs() < sides[..., None]  # B x N x 2 x 16
    near = near[:, :, 1, :, None] & near[:, :, 0, None]
    assert (weights * near).sum(dim=1).min() > 0.97  # its own leaf's, and those of leaves beside it
    assert (weights.argmax(dim=1) == inside.int().argmax(dim=1)).float().mean() > 0.85


def test_tokens_far_away_leave_a_cell_alone() -> None:
    features = torch.zeros(1, 16, 1)
    features[0, 0] = 1000
    grid = splat(features, cells(16)[None], 4)
    assert grid[0, 0, 0, 0] > 990
    assert grid[0, 0, 2:, 2:].max() < 0.1


def test_a_coarser_grid_is_the_mean_of_the_tokens() -> None:
    features = torch.randn(2, 16, 3)
    rois = cells(16).expand(2, -1, -1)
    torch.testing.assert_close(splat(features, rois, 1)[..., 0, 0], features.mean(dim=1), atol=1e-5, rtol=1e-5)
    quarters = features.unflatten(1, (2, 2, 2, 2)).mean(dim=(2, 4)).permute(0, 3, 1, 2)
    torch.testing.assert_close(splat(features, rois, 2), quarters, atol=0.05, rtol=0)
    rows = features.unflatten(1, (4, 4)).mean(dim=2).mT
    torch.testing.assert_close(splat(features, rois, (4, 1))[..., 0], rows, atol=0.05, rtol=0)


def test_rows_go_down_and_columns_to_the_right() -> None:
    right_upper = torch.tensor([0.75, 0.0, 1.0, 0.25])
    weights = cell_weights(torch.stack([right_upper, torch.tensor([0.0, 0.25, 1.0, 1.0])])[None], 4, 8)[0, 0]
    assert weights[0, 7] > 0.9
    assert weights[3, 0] < 0.01
    assert weights[0, 7] > weights[1, 7]


def test_gradients_reach_tokens_and_rois_and_are_those_of_differences() -> None:
    tokens = torch.randn(1, 5, 2, requires_grad=True)
    rois = random_rois(1, 5, seed=4).requires_grad_()
    direction = torch.randn(1, 2, 3, 4)

    def value(rois: Tensor) -> Tensor:
        return (splat(tokens, rois, (3, 4)) * direction).sum()

    value(rois).backward()
    assert (tokens.grad != 0).all()
    assert (rois.grad != 0).all()
    step = torch.randn_like(rois)
    with torch.no_grad():
        difference = (value(rois + 1e-3 * step) - value(rois - 1e-3 * step)) / 2e-3
    assert float((rois.grad * step).sum()) == pytest.approx(float(difference), rel=0.02)


def test_float32_whatever_is_around_it() -> None:
    tokens, rois = torch.randn(1, 16, 8), cells(16)[None]
    with torch.autocast("cpu", torch.bfloat16):
        around = splat(tokens, rois, 8)
    assert around.dtype == torch.float32
    torch.testing.assert_close(around, splat(tokens, rois, 8), atol=0, rtol=0)
    assert splat(tokens.bfloat16(), rois.bfloat16(), 8).dtype == torch.float32


def test_grids_without_cells__and_tokens_and_rois_that_do_not_belong_together() -> None:
    for tokens, size, message in (
        (4, 0, "at least one row and one column, not 0 x 0"),
        (4, (4, -1), "one column, not 4 x -1"),
        (5, 2, "need RoIs B x N x 4"),
    ):
        with pytest.raises(ValueError, match=message):
            splat(torch.zeros(1, tokens, 2), cells(4)[None], size)


def test_to_grid_leaves_out_the_prefix_tokens_and_takes_the_last_rois() -> None:
    latent, rois = torch.randn(2, 6, 4), random_rois(2, 6)
    prefix = torch.full((2, 5, 4), 1e6)
    output = output_of(torch.cat([prefix, latent], dim=1), rois)
    assert torch.equal(output.latent_tokens, latent)
    assert torch.equal(output.to_grid((3, 5)), splat(latent, rois, (3, 5)))
    assert torch.equal(output_of(latent, rois).to_grid(3), splat(latent, rois, 3))


class Gridded(nn.Module):
    """Tokens and RoIs as a map of features."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, tokens: Tensor, rois: Tensor) -> Tensor:
        return SparseFormerOutput(tokens[:, 0], None, tokens, rois[:, None], tokens).to_grid(self.size)


def test_compiles_and_exports_for_any_batch() -> None:
    torch._dynamo.reset()
    gridded, batch = Gridded((1, 10)), Dim("batch")
    shapes = {"tokens": {0: batch}, "rois": {0: batch}}
    exported = torch.export.export(gridded, (torch.randn(2, 7, 4), random_rois(2, 5)), dynamic_shapes=shapes).module()
    compiled = torch.compile(gridded, fullgraph=True, backend="eager")
    tokens, rois = torch.randn(3, 7, 4), random_rois(3, 5, seed=1)
    for network in (exported, compiled):
        torch.testing.assert_close(network(tokens, rois), gridded(tokens, rois), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("front", FRONTS)
def test_a_student_becomes_a_map_that_learns(front: str) -> None:
    student = student_of(FRONTS[front]).train()
    grid = student(torch.rand(2, 3, 48, 48)).to_grid((5, 7))
    assert grid.shape == (2, 32, 5, 7)
    (grid * torch.randn_like(grid)).sum().backward()
    focusing = [value.grad for value in student.focusing.parameters()]
    assert any(gradient is not None and gradient.any() for gradient in focusing)
