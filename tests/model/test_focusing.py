"""Starting values: new parts that say little at first."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from sparseformers import rois as roi_arithmetic
from sparseformers.model import SparseFormer
from sparseformers.model.mixing import AdaptiveMixing
from sparseformers.model.sampling import SamplingPoints
from tests.model.small import original_model, small_model


def test_rois_stay_on_the_initial_grid_and_every_token_samples_the_same_points_of_its_own() -> None:
    model, images = small_model(trained=False, tokens=7, points=9, iterations=3), torch.rand(2, 3, 48, 64)
    grid = roi_arithmetic.initial_grid(7).expand(2, 4, -1, -1)
    torch.testing.assert_close(model(images).rois, grid, atol=1e-6, rtol=0)
    centre, size = roi_arithmetic.centre_and_size(roi_arithmetic.initial_grid(7))
    for points in model.sampling_points(images):
        inside = (points - centre[:, None]) / size[:, None]
        torch.testing.assert_close(inside, inside[:1, :1].expand_as(inside), atol=1e-5, rtol=0)


def test_sampling_points_start_as_a_grid_row_by_row__or_at_random_inside_the_roi() -> None:
    square, other = SamplingPoints(64, 9), SamplingPoints(64, 7)
    for module in (square, other):
        module.start()
    expected = [(x, y) for y in (-1 / 3, 0.0, 1 / 3) for x in (-1 / 3, 0.0, 1 / 3)]
    torch.testing.assert_close(square.bias.detach().view(9, 2), torch.tensor(expected))
    assert other.bias.abs().max() <= 0.5
    assert len(other.bias.unique()) == 14


def test_mixing_matrices_start_xavier_uniform_whatever_the_token() -> None:
    channels, points = 64, 16
    module = AdaptiveMixing(64, channels, points, 32)
    module.generator.start()
    first, second = module.generator(torch.randn(2, 64))
    assert torch.equal(first, second)
    channel, spatial = first.split([channels**2, points * 32])
    for matrix, fans in ((channel, channels + channels), (spatial, points + 32)):
        bound = math.sqrt(6 / fans)
        assert matrix.abs().max() <= bound
        assert matrix.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_branches_that_should_be_quiet_start_with_small_norms() -> None:
    focusing = small_model(trained=False).focusing
    for width, sampling in ((64, focusing.layer.sampling), (32, focusing.last_sampling)):
        for norm in (sampling.mixing.generator[0], sampling.sampling_points.offsets[0]):
            torch.testing.assert_close(norm.weight.detach(), torch.full((width,), width**-0.5))
    torch.testing.assert_close(focusing.layer.adjustment.delta[0].weight.detach(), torch.full((64,), 1 / 8))
    assert focusing.layer.sampling.position.norm.weight.detach().eq(1).all()


def test_linear_layers_start_narrow_and_without_bias() -> None:
    focusing = small_model(trained=False).focusing
    silent = {focusing.layer.adjustment.delta[-1]}
    for sampling in (focusing.layer.sampling, focusing.last_sampling):
        silent |= {sampling.sampling_points.offsets[-1], sampling.mixing.generator[-1]}
    for module in focusing.modules():
        if isinstance(module, nn.Linear) and module in silent:
            assert module.weight.detach().eq(0).all()
        elif isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.15)
            assert module.bias.detach().eq(0).all()


def test_norms_of_the_new_parts_have_an_epsilon_of_their_own() -> None:
    model = small_model(trained=False, block={"norm_eps": 1e-3})
    assert {norm.eps for norm in model.focusing.modules() if isinstance(norm, nn.LayerNorm)} == {1e-5}
    assert {norm.eps for norm in model.cortex.modules() if isinstance(norm, nn.LayerNorm)} == {1e-3}


@pytest.mark.parametrize("make", [small_model, original_model])
def test_rois_begin_with_the_learnt_ones_and_move(make: Callable[[], SparseFormer]) -> None:
    model = make()
    rois = model(torch.rand(2, 3, 32, 32)).rois
    torch.testing.assert_close(rois[:, 0], model.focusing.initial_rois.detach().expand(2, -1, -1))
    for stage in range(1, rois.shape[1]):
        assert not torch.equal(rois[:, stage], rois[:, stage - 1])
    assert rois.dtype == torch.float32


@pytest.mark.parametrize(("make", "first"), [(small_model, 0), (original_model, 1)])  # v1 adjusts RoIs before it samples
def test_points_of_every_sampling_are_set_into_the_rois_of_its_stage(make: Callable[..., SparseFormer], first: int) -> None:
    model, images = make(tokens=7, points=5, iterations=3), torch.rand(2, 3, 40, 56)
    rois, points = model(images).rois, model.sampling_points(images)
    assert [each.shape for each in points] == [(2, 7, 5, 2)] * 4
    for stage, sampled in enumerate(points, start=first):
        centre, size = roi_arithmetic.centre_and_size(rois[:, stage])
        torch.testing.assert_close(sampled.mean(dim=-2), centre, atol=1e-5, rtol=0)
        torch.testing.assert_close(sampled.std(dim=-2), size / 3, atol=1e-3, rtol=1e-3)


def test_has_no_other_number_of_tokens() -> None:
    with pytest.raises(ValueError, match="this front has 6 tokens and no other number, not 7"):
        small_model(tokens=6)(torch.rand(1, 3, 32, 32), 7)
