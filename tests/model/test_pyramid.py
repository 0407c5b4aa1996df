from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sparseformers import rois as roi_arithmetic
from sparseformers.model.pyramid import ImagePyramid, octave_of


def random_images(height: int = 48, width: int = 48) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("rows", "columns", "height", "width"), [(3, 3, 48, 48), (2, 4, 64, 40), (1, 1, 32, 32)])
def test_cells__are_the_patches_of_the_image_at_the_low_resolution(rows: int, columns: int, height: int, width: int) -> None:
    images = random_images(height, width)
    pyramid = ImagePyramid(patch_size=6)
    cells = roi_arithmetic.cells(rows * columns).expand(2, -1, -1)
    patches, points = pyramid(pyramid.levels(images, (rows, columns)), cells)
    low = F.interpolate(images, size=(6 * rows, 6 * columns), mode="bilinear", antialias=True)
    expected = low.unfold(2, 6, 6).unfold(3, 6, 6).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)  # B x N x 3 x P x P
    torch.testing.assert_close(patches, expected, rtol=0, atol=1e-5)
    assert points.shape == (2, rows * columns, 36, 2)


def test_half_a_cell__is_read_an_octave_finer() -> None:
    images = random_images(64, 64)
    pyramid = ImagePyramid(patch_size=8)
    rois = roi_arithmetic.cells(16).expand(2, -1, -1).clone()
    rois[:, 5] = torch.tensor([0.25, 0.5, 0.375, 0.625])  # half a cell's sides, on the pixels of the image
    patches, _ = pyramid(pyramid.levels(images, (4, 4)), rois)
    torch.testing.assert_close(patches[:, 5], images[:, :, 32:40, 16:24], rtol=0, atol=1e-5)


def test_octave__is_continuous_and_bounded() -> None:
    sides = torch.tensor([1e-9, 0.125, 0.25 / 2**0.5, 0.25, 0.5, 3.0])
    boxes = torch.cat([torch.stack([0 * sides, 0 * sides, sides, sides], dim=-1), roi_arithmetic.cells(16)[:10]])  # of 16
    assert octave_of(boxes)[:6].tolist() == pytest.approx([1, 1, 0.5, 0, -1, -1], abs=1e-5)


def test_between_two_octaves__both_count_by_halves() -> None:
    images = random_images()
    pyramid = ImagePyramid(patch_size=4)
    levels = pyramid.levels(images, (3, 3))
    side = 1 / 3 / 2**0.5
    boxes = torch.tensor([0.2, 0.2, 0.2 + side, 0.2 + side]).expand(2, 9, -1)
    patches, points = pyramid(levels, boxes)
    read = [F.grid_sample(level, 2 * points - 1, align_corners=False, padding_mode="border") for level in levels]
    expected = (0.5 * read[1] + 0.5 * read[2]).transpose(1, 2).unflatten(-1, (4, 4))
    torch.testing.assert_close(patches, expected, rtol=0, atol=1e-4)


def test_gradient__moves_a_roi_towards_what_is_wanted() -> None:
    """A bright bar lies right of the RoI: asking for more light moves the RoI to the right."""
    images = torch.zeros(1, 3, 32, 32)
    images[..., 16:22] = torch.linspace(0.2, 1, 6)
    pyramid = ImagePyramid(patch_size=4)
    box = torch.tensor([[[0.3, 0.3, 0.6, 0.6]]], requires_grad=True)
    patches, _ = pyramid(pyramid.levels(images, (2, 2)), box)
    patches.sum().backward()
    assert box.grad is not None
    assert box.grad[0, 0, 0] + box.grad[0, 0, 2] > 0


def test_outside_the_image__the_border_goes_on() -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[..., -1] = 1
    pyramid = ImagePyramid(patch_size=4)
    patches, _ = pyramid(pyramid.levels(images, (2, 2)), torch.tensor([[[1.5, 0.0, 2.0, 0.5]]]))
    assert patches.min() > 0
    torch.testing.assert_close(patches, patches[..., :1, :1].expand_as(patches), rtol=0, atol=1e-6)
