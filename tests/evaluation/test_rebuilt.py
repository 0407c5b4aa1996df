"""A teacher built of our own parts does what the host library's network does, whichever library that is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.baselines import RebuiltTeacher
from sparseformers.errors import ConfigError
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.teachers import huggingface as huggingface_adapter
from sparseformers.teachers import open_clip as open_clip_adapter
from tests.teachers import huggingface_models as huggingface
from tests.teachers import test_open_clip as open_clip
from tests.teachers import test_timm as timm
from tests.teachers.identity import check_same, images_for


@torch.no_grad()
def check_rebuilt(teacher: Teacher) -> None:
    rebuilt = RebuiltTeacher(teacher)
    images = images_for(teacher)
    own, ours = teacher(images), rebuilt(images)
    assert own.embedding.std() > 1e-2
    check_same(ours.embedding, own.embedding, tolerance=1e-5)
    assert (ours.logits is None) == (own.logits is None)
    if own.logits is not None:
        check_same(ours.logits, own.logits, tolerance=1e-5)


@pytest.mark.parametrize("variant", timm.VARIANTS)
def test_timm(variant: str) -> None:
    check_rebuilt(load_teacher(timm.tiny(**timm.VARIANTS[variant])))


@pytest.mark.parametrize("options", [{"img_size": (24, 40)}, {"pos_embed": "none"}, {"pre_norm": True, "reg_tokens": 2}])
def test_timm_with_other_patches(options: dict[str, Any]) -> None:
    check_rebuilt(load_teacher(timm.tiny(**options)))


def test_timm_at_another_size() -> None:
    check_rebuilt(load_teacher(timm.tiny(reg_tokens=2), image_size=48))


def test_an_image_that_is_no_whole_number_of_patches() -> None:
    teacher = load_teacher(timm.tiny(img_size=36))
    assert teacher.patch_tokens == 16
    check_rebuilt(teacher)


@pytest.mark.parametrize("variant", open_clip.VARIANTS)
def test_open_clip(variant: str) -> None:
    check_rebuilt(open_clip_adapter.from_module(open_clip.tiny(**open_clip.VARIANTS[variant])))


def test_open_clip_with_quick_gelu_at_another_size() -> None:
    check_rebuilt(open_clip_adapter.from_module(open_clip.tiny(quick_gelu=True), image_size=48))


@pytest.mark.parametrize("tower", [lambda: open_clip.siglip(proj="linear"), open_clip.siglip])
def test_open_clip_with_a_timm_tower(tower: Any) -> None:
    check_rebuilt(open_clip_adapter.from_module(tower()))


@pytest.mark.parametrize("variant", huggingface.VARIANTS)
def test_huggingface(variant: str) -> None:
    check_rebuilt(huggingface_adapter.from_module(huggingface.VARIANTS[variant](), image_size=32))


@pytest.mark.parametrize("build", [huggingface.vit, huggingface.dinov2_with_registers, huggingface.siglip_vision])
@pytest.mark.parametrize("image_size", [24, 48])
def test_huggingface_at_another_size(build: Any, image_size: int) -> None:
    check_rebuilt(huggingface_adapter.from_module(build(), image_size=image_size))


@pytest.mark.parametrize("build", [huggingface.clip_vision, huggingface.siglip_vision])
def test_huggingface_with_another_epsilon(build: Any) -> None:
    check_rebuilt(huggingface_adapter.from_module(build(layer_norm_eps=1e-3), image_size=32))


def test_it_is_a_frozen_copy_in_evaluation_mode() -> None:
    teacher = load_teacher(timm.tiny())
    fingerprint = teacher.fingerprint()
    rebuilt = RebuiltTeacher(teacher)
    assert not any(weight.requires_grad for weight in rebuilt.parameters())
    assert not any(part.training for part in rebuilt.modules())
    assert not any(isinstance(part, type(teacher.network)) for part in rebuilt.modules())
    with torch.no_grad():
        for weight in rebuilt.parameters():
            nn.init.zeros_(weight)
    assert teacher.fingerprint() == fingerprint


def test_building_it_leaves_the_global_random_numbers_alone() -> None:
    teacher = load_teacher(timm.tiny())
    before = torch.get_rng_state()
    RebuiltTeacher(teacher)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images of \(32, 32\), not \(40, 32\)"):
        RebuiltTeacher(load_teacher(timm.tiny()))(torch.zeros(1, 3, 40, 32))


def test_a_grid_without_patches_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"A grid of 3 x 0 patches holds none\. Use 1 or more a side\."):
        RebuiltTeacher(load_teacher(timm.tiny()), grid=(3, 0))
