from dataclasses import replace
from typing import cast

import pytest
import torch
import torch.nn.functional as F

from sparseformers import rois as roi_arithmetic
from sparseformers.errors import ConfigError
from sparseformers.model import SparseFormer
from sparseformers.model.grid import GridFront, read_map
from tests.model.small import grid_config, scattered, small_config


def grid_model(*, tokens: int = 6) -> SparseFormer:
    config = grid_config(tokens=tokens, patch_size=4, depth=2, prefix_tokens=2)
    return cast(SparseFormer, scattered(SparseFormer(config).eval(), scale=0.2))


def grid_front(*, patch_size: int) -> GridFront:
    config = grid_config(patch_size=patch_size)
    return GridFront(config.focusing, config.cortex)


def random_images(height: int = 40, width: int = 40) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_shapes_and_rois() -> None:
    images = random_images(48, 36)
    for tokens in (1, 4, 6, 7):
        model = grid_model(tokens=tokens)
        output = model(images)
        assert output.embedding.shape == (2, 32)
        assert output.tokens.shape == (2, 2 + tokens, 32)
        assert torch.equal(output.rois, roi_arithmetic.cells(tokens).expand(2, 1, -1, -1))
        assert [tuple(points.shape) for points in model.sampling_points(images)] == [(2, tokens, 16, 2)]


def test_other_numbers_of_tokens__from_one_model() -> None:
    model = grid_model(tokens=9)
    images = random_images()
    own = model(images)
    torch.testing.assert_close(model(images, 9).embedding, own.embedding, rtol=0, atol=0)
    for tokens in (1, 4, 7, 16):
        output = model(images, tokens=tokens)
        assert output.tokens.shape == (2, 2 + tokens, 32)
        assert output.rois.shape[2] == tokens
        assert not torch.allclose(output.embedding, own.embedding)


def test_patches__are_those_of_the_image_at_the_low_resolution() -> None:
    front = grid_front(patch_size=6)
    for rows, columns, height, width in ((3, 3, 48, 48), (2, 4, 64, 40), (1, 1, 32, 32)):
        images = random_images(height, width)
        cells = roi_arithmetic.cells(rows * columns).expand(2, -1, -1)
        low = F.interpolate(images, size=(6 * rows, 6 * columns), mode="bilinear", antialias=True)
        expected = low.unfold(2, 6, 6).unfold(3, 6, 6).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)  # B x N x 3 x P x P
        assert torch.equal(front.cut_patches(images, cells), expected)
        torch.testing.assert_close(front.sample_patches(images, cells), expected, rtol=0, atol=1e-5)


def test_sampled_patches__of_smaller_rois_are_read_finer() -> None:
    images, front = random_images(64, 64), grid_front(patch_size=8)
    rois = roi_arithmetic.cells(16).expand(2, -1, -1).clone()
    rois[:, 5] = torch.tensor([0.25, 0.5, 0.375, 0.625])  # half a cell's sides, on the pixels of the image
    side = 0.25 / 2**0.5
    rois[:, 6] = torch.tensor([0.2, 0.2, 0.2 + side, 0.2 + side])  # between both resolutions
    patches = front.sample_patches(images, rois)
    torch.testing.assert_close(patches[:, 5], images[:, :, 32:40, 16:24], rtol=0, atol=1e-5)
    points = 2 * roi_arithmetic.regular_points(rois[:, 6:7], 8) - 1
    read = [F.grid_sample(front.at_resolution(images, 16, scale), points, align_corners=False) for scale in (1, 2)]
    torch.testing.assert_close(patches[:, 6], (sum(read) / 2).view(2, 3, 8, 8), rtol=0, atol=1e-4)


def test_sampled_patches__outside_the_image_are_its_border() -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[..., -1] = 1
    patches = grid_front(patch_size=4).sample_patches(images, torch.tensor([[[1.5, 0.0, 2.0, 0.5]] * 4]))
    assert patches.min() > 0
    torch.testing.assert_close(patches, patches[..., :1, :1].expand_as(patches), rtol=0, atol=1e-6)


def test_read_map__at_cells_is_the_map_itself_and_between_them_the_mean() -> None:
    position_map = torch.randn(8, 2, 3, generator=torch.Generator().manual_seed(0))
    cells = roi_arithmetic.cells(6)[None]
    torch.testing.assert_close(read_map(position_map, cells)[0], position_map.flatten(1).T)
    between = (cells[:, :1] + cells[:, 1:2]) / 2
    torch.testing.assert_close(read_map(position_map, between)[0, 0], position_map[:, 0, :2].mean(dim=-1))


def test_compiles_whole__with_rows_of_unequal_lengths() -> None:
    images, model = random_images(), grid_model(tokens=7)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images).embedding, model(images).embedding, rtol=0, atol=1e-5)


def test_config__prefix_tokens_have_one_home() -> None:
    with pytest.raises(ConfigError, match="prefix tokens are the front's"):
        replace(small_config(), focusing=grid_config().focusing)
