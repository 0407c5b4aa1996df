from typing import cast

import pytest
import torch
import torch.nn.functional as F

from sparseformers.config import CortexConfig, MixedResolutionConfig, SparseFormerConfig
from sparseformers.errors import ConfigError
from sparseformers.model import SparseFormer
from sparseformers.model.mixed_resolution import MixedResolutionFront
from tests.model.small import grid_config, scattered
from tests.model.test_grid import random_images

CORTEX = grid_config(depth=2, prefix_tokens=2).cortex
CONFIG = MixedResolutionConfig(tokens=16, levels=3, patch_size=4, channels=8)


def mixed_model(config: MixedResolutionConfig = CONFIG, cortex: CortexConfig = CORTEX) -> SparseFormer:
    torch.manual_seed(0)
    student = SparseFormer(SparseFormerConfig(focusing=config, cortex=cortex)).eval()
    return cast(SparseFormer, scattered(student, scale=0.2))


def front_of(student: SparseFormer) -> MixedResolutionFront:
    assert isinstance(student.focusing, MixedResolutionFront)
    return student.focusing


def test_shapes__and_other_numbers_of_tokens() -> None:
    student = mixed_model()
    for tokens in (None, 7, 10, 64, 256):
        output = student(random_images(), tokens)
        count = tokens or 16
        assert output.tokens.shape == (2, 2 + count, 32)
        assert output.rois.shape == (2, 4, count, 4)
        assert output.attention_map is not None
        assert output.attention_map.shape == (2, 8, 8)
        torch.testing.assert_close(output.attention_map.sum(dim=(1, 2)), torch.ones(2))
        assert output.to_grid(5).shape == (2, 32, 5, 5)
    assert [points.shape for points in student.sampling_points(random_images())] == [(2, 16, 16, 2)]


def test_numbers_of_tokens_that_no_splits_give__are_refused_with_the_nearest() -> None:
    for tokens, nearest in ((4, 7), (50, 49), (1000, 256)):
        with pytest.raises(ValueError, match=rf"has 7, 10, \.\.\. 256 tokens, not {tokens}; the nearest is {nearest}$"):
            mixed_model()(random_images(), tokens)
        with pytest.raises(ConfigError, match=f"the nearest is {nearest}"):
            MixedResolutionConfig(tokens=tokens)


@pytest.mark.parametrize("height", [16, 12])  # the first needs no resizing for cells of the second level
def test_leaves__are_read_as_patches_at_their_own_scale(height: int) -> None:
    front, images = front_of(mixed_model()), random_images(height, 16)
    output = front(images, 10)
    for image in range(2):
        for number, (x1, y1, x2, y2) in enumerate(output.rois[image, -1].tolist()):
            side = round(4 / (x2 - x1))  # of the image at the resolution of this leaf
            shrunk = F.interpolate(images[image : image + 1], (side, side), mode="bilinear", antialias=True)
            left, top, right, bottom = (round(side * edge) for edge in (x1, y1, x2, y2))
            pixels = shrunk[0, :, top:bottom, left:right]
            level = round(torch.tensor(side / 8).log2().item())
            row, column = round(y1 * 2**level * 2), round(x1 * 2**level * 2)
            cell = front.tree.first[level] + row * front.tree.grids[level][1] + column
            embedding = front.embedding
            wanted = F.linear(pixels.flatten(), embedding.weight.flatten(1), embedding.bias)
            wanted = wanted + embedding.positions[cell]
            torch.testing.assert_close(output.tokens[image, 2 + number], wanted, rtol=1e-4, atol=1e-4)


def test_only_the_map_teaches_the_selector__and_it_teaches_nothing_else() -> None:
    student = mixed_model()
    output = student(random_images())
    assert output.attention_map is not None
    output.embedding.sum().backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in front_of(student).selector.parameters())
    student.zero_grad()
    (output.attention_map**2).sum().backward()
    learning = {name for name, parameter in student.named_parameters() if parameter.grad is not None}
    assert learning == {name for name, _ in student.named_parameters() if name.startswith("focusing.selector.")}


def test_perturbation__splits_otherwise_in_training_alone() -> None:
    images = random_images().repeat(8, 1, 1, 1)
    student = mixed_model(MixedResolutionConfig(tokens=16, levels=3, patch_size=4, channels=8, perturbation=0.5))
    evaluated = student(images).rois[:, -1]
    assert torch.equal(evaluated, student(images).rois[:, -1])
    trained = student.train()(images)
    other = (trained.rois[:, -1] != evaluated).flatten(1).any(dim=1)
    assert 0 < other.sum() < len(images)
    assert trained.attention_map is not None
    torch.testing.assert_close(trained.attention_map, student.eval()(images).attention_map)


def test_wide_start__has_wide_grids() -> None:
    output = mixed_model(MixedResolutionConfig(tokens=32, start=(2, 4), levels=2, patch_size=4))(random_images(32, 64))
    sides = output.rois[:, 0, :, 2:] - output.rois[:, 0, :, :2]
    torch.testing.assert_close(sides, torch.tensor([0.25, 0.5]).expand_as(sides))


def test_compiles_whole__with_a_norm_before_the_blocks() -> None:
    student = mixed_model(MixedResolutionConfig(tokens=16, levels=2, patch_size=4, channels=8, pre_norm=True))
    images = random_images()
    expected = student(images)
    output = torch.compile(student, fullgraph=True, backend="eager")(images)
    torch.testing.assert_close(output.embedding, expected.embedding, rtol=1e-5, atol=1e-5)
    assert torch.equal(output.rois, expected.rois)
