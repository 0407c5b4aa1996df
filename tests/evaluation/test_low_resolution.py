"""The teacher at a lower resolution is the teacher that the adapter would have loaded for that resolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sparseformers.errors import ConfigError
from sparseformers.evaluation import embed, measure_cost
from sparseformers.evaluation.rebuilt import LowResolutionTeacher
from sparseformers.teachers import load_teacher
from sparseformers.teachers import open_clip as open_clip_adapter
from tests.evaluation.networks import batches_of
from tests.teachers import test_open_clip as open_clip
from tests.teachers import test_timm as timm
from tests.teachers.identity import check_same, images_for


@torch.no_grad()
@pytest.mark.parametrize(
    "variant", ["class token", "layer scale", "registers", "registers without positions", "average pooling", "attention pooling"]
)
@pytest.mark.parametrize("side", [1, 2, 3])
def test_it_is_the_teacher_loaded_at_that_size(variant: str, side: int) -> None:
    network = timm.tiny(**timm.VARIANTS[variant])
    images = images_for(load_teacher(network))
    shrunk = F.interpolate(images, (8 * side, 8 * side), mode="bilinear", antialias=True)
    expected = load_teacher(network, image_size=8 * side)(shrunk)
    actual = LowResolutionTeacher(load_teacher(network), side)(images)
    check_same(actual.embedding, expected.embedding, tolerance=1e-5)
    assert (actual.logits is None) == (expected.logits is None)
    if expected.logits is not None:
        check_same(actual.logits, expected.logits, tolerance=1e-5)


@torch.no_grad()
def test_it_is_the_clip_loaded_at_that_size() -> None:
    network = open_clip.tiny(quick_gelu=True)
    images = images_for(open_clip_adapter.from_module(network))
    shrunk = F.interpolate(images, (16, 16), mode="bilinear", antialias=True)
    expected = open_clip_adapter.from_module(network, image_size=16)(shrunk)
    actual = LowResolutionTeacher(open_clip_adapter.from_module(network), 2)(images)
    check_same(actual.embedding, expected.embedding, tolerance=1e-5)


@torch.no_grad()
def test_at_the_teachers_own_resolution_it_is_the_teacher() -> None:
    teacher = load_teacher(timm.tiny())
    images = images_for(teacher)
    check_same(LowResolutionTeacher(teacher, 4)(images).embedding, teacher(images).embedding, tolerance=1e-5)


@torch.no_grad()
def test_it_takes_images_of_any_size_and_forgets_fine_detail() -> None:
    network = LowResolutionTeacher(load_teacher(timm.tiny()), 2)
    plain, narrow, wide = (torch.full((1, 3, 64, 48), 0.5) for _ in range(3))
    narrow += 0.4 * (torch.arange(48) % 2 * 2 - 1)
    wide += 0.4 * (torch.arange(48) // 12 % 2 * 2 - 1)
    of_plain, of_narrow, of_wide = (network(images).embedding for images in (plain, narrow, wide))
    assert of_plain.shape == (1, 64)
    assert (of_narrow - of_plain).norm() < 0.3 * (of_wide - of_plain).norm()


def test_it_is_evaluated_and_measured_like_a_student() -> None:
    teacher = load_teacher(timm.tiny())
    network = LowResolutionTeacher(teacher, 2)
    embedded = embed(network, teacher, batches_of(images_for(teacher, 5), size=2), device="cpu", autocast=None)
    assert embedded.student.shape == embedded.teacher.shape == (5, 64)
    assert embedded.student_logits is not None
    assert embedded.student_logits.shape == (5, 5)
    tokens, width, hidden = 5, 64, 256
    blocks = 2 * (tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width)
    cost = measure_cost(network, (32, 32))
    assert cost.multiply_adds == 4 * 3 * 8 * 8 * width + blocks + 5 * width
    own = {"pos_embed", "cls_token"}  # positions of 4 patches and a class token, for those of 16 and of the class token
    parameters = sum(value.numel() for name, value in teacher.network.named_parameters() if name not in own)
    assert cost.parameters == parameters + (4 + 1) * width


@pytest.mark.parametrize(("images", "message"), [((1, 3, 31, 32), "at least 32 pixels"), ((3, 32, 32), "must be B x 3 x H x W")])
def test_what_is_no_image_is_refused(images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LowResolutionTeacher(load_teacher(timm.tiny()), 2)(torch.zeros(images))


def test_a_side_without_patches_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"A grid of 0 x 0 patches holds none"):
        LowResolutionTeacher(load_teacher(timm.tiny()), 0)
