import heapq

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparseformers.model.quadtree import Quadtree
from sparseformers.rois import cells


def greedy(tree: Quadtree, claims: Tensor, splits: int) -> list[int]:
    """The leaves that splitting the cell of the largest claim, one after the other, comes to."""
    children: dict[int, list[int]] = {}
    for cell, (level, ancestors) in enumerate(zip(tree.level.tolist(), tree.ancestors.tolist(), strict=True)):
        if level:
            children.setdefault(ancestors[level - 1], []).append(cell)
    queue = [(-float(claims[cell]), cell) for cell in range(tree.first[1])]
    heapq.heapify(queue)
    leaves = set(range(tree.first[1]))
    for _ in range(splits):
        _, cell = heapq.heappop(queue)
        leaves.remove(cell)
        leaves.update(children[cell])
        for child in children[cell]:
            if child < len(claims):
                heapq.heappush(queue, (-float(claims[child]), child))
    return sorted(leaves)


def depth_map(rois: Tensor, side: int = 48) -> Tensor:
    """How many RoIs N x 4 lie over each point of a grid that no cell's edge goes through."""
    at = (torch.arange(side) + 0.5) / side
    inside = [(at >= rois[:, axis, None]) & (at < rois[:, axis + 2, None]) for axis in (0, 1)]
    return torch.einsum("nx,ny->yx", *(each.float() for each in inside))


@settings(max_examples=40, deadline=None)
@given(
    start=st.sampled_from([(2, 2), (1, 3), (3, 2)]),
    levels=st.integers(1, 3),
    seed=st.integers(0, 2**16),
    sharpness=st.sampled_from([0.0, 0.4, 1.0]),
    share=st.floats(0, 1),
)
def test_leaves__are_those_of_greedy_splitting_and_tile_the_image(
    start: tuple[int, int], levels: int, seed: int, sharpness: float, share: float
) -> None:
    tree = Quadtree(start, levels)
    shares = torch.rand(2, *tree.map_grid, generator=torch.Generator().manual_seed(seed)) ** 4
    claims = tree.claims(shares / shares.sum(dim=(1, 2), keepdim=True), sharpness)
    splits = 1 + round(share * (tree.first[levels] - 1))
    leaves = tree.leaves(claims, splits)
    assert leaves.shape == (2, tree.first[1] + 3 * splits)
    for image in range(2):
        assert leaves[image].tolist() == greedy(tree, claims[image], splits)
        assert (depth_map(tree.cells[leaves[image]]) == 1).all()


@pytest.mark.parametrize("sharpness", [0.0, 0.5, 1.0])
def test_leaves__of_a_flat_map_are_the_cells_of_a_grid(sharpness: float) -> None:
    tree = Quadtree((2, 2), 3)
    claims = tree.claims(torch.full((1, 8, 8), 1 / 64), sharpness)
    for tokens, splits in ((16, 4), (64, 20), (256, 84)):
        assert torch.equal(tree.cells[tree.leaves(claims, splits)[0]], cells(tokens))


def test_claims__are_the_mass_over_the_area_and_at_most_the_parents() -> None:
    tree = Quadtree((1, 1), 2)
    shares = torch.tensor([[[0.1, 0.6], [0.2, 0.1]]])
    assert tree.claims(shares, 0.0)[0].tolist() == pytest.approx([1.0, 0.1, 0.6, 0.2, 0.1], rel=2e-3)
    assert tree.claims(shares, 1.0)[0].tolist() == pytest.approx([1.0, 0.4, 1.0, 0.8, 0.4], rel=2e-3)


def test_stages__lead_from_a_start_cell_to_the_leaf() -> None:
    tree = Quadtree((2, 2), 2)
    shares = torch.zeros(1, 4, 4)
    shares[0, 0, 0] = 1
    leaves = tree.leaves(tree.claims(shares, 0.0), 2)
    stages = tree.stages(leaves)[0]  # 3 x 10 x 4
    sides = stages[..., 2] - stages[..., 0]
    assert sides.tolist() == [[0.5] * 10, [0.5] * 3 + [0.25] * 7, [0.5] * 3 + [0.25] * 3 + [0.125] * 4]
    assert (stages[1:, :, :2] >= stages[:-1, :, :2]).all()
    assert (stages[1:, :, 2:] <= stages[:-1, :, 2:]).all()
