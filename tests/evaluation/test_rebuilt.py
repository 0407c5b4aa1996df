"""The teacher built of our own parts is the teacher; at a lower resolution, the one loaded for that."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.baselines import RebuiltTeacher
from sparseformers.errors import ConfigError
from sparseformers.evaluation import embed, measure_cost
from sparseformers.evaluation.rebuilt import LowResolutionTeacher
from sparseformers.teachers import Teacher, TeacherOutput, load_teacher
from sparseformers.teachers import huggingface as huggingface_adapter
from sparseformers.teachers import open_clip as open_clip_adapter
from tests.evaluation.networks import batches_of
from tests.teachers import huggingface_models as huggingface
from tests.teachers import test_open_clip as open_clip
from tests.teachers import test_timm as timm
from tests.teachers.identity import check_same, images_for

SEVERAL = ("layer scale", "registers", "registers without positions", "average pooling", "attention pooling")
"""Variants of timm's for the lower resolutions."""


def check_same_output(ours: TeacherOutput, own: TeacherOutput) -> None:
    assert own.embedding.std() > 1e-2
    check_same(ours.embedding, own.embedding, tolerance=1e-5)
    assert (ours.logits is None) == (own.logits is None)
    if own.logits is not None:
        check_same(ours.logits, own.logits, tolerance=1e-5)


@torch.no_grad()
def check_rebuilt(teacher: Teacher) -> None:
    images = images_for(teacher)
    check_same_output(RebuiltTeacher(teacher)(images), teacher(images))


def test_timm() -> None:
    for variant in timm.VARIANTS.values():
        check_rebuilt(load_teacher(timm.tiny(**variant)))
    for options in ({"img_size": (24, 40)}, {"pos_embed": "none"}, {"pre_norm": True, "reg_tokens": 2}, {"img_size": 36}):
        check_rebuilt(load_teacher(timm.tiny(**options)))  # the last of which is no whole number of patches
    check_rebuilt(load_teacher(timm.tiny(reg_tokens=2), image_size=48))


def test_open_clip() -> None:
    towers = [open_clip.tiny(**variant) for variant in open_clip.VARIANTS.values()]
    for tower in (*towers, open_clip.siglip(proj="linear"), open_clip.siglip()):
        check_rebuilt(open_clip_adapter.from_module(tower))
    check_rebuilt(open_clip_adapter.from_module(open_clip.tiny(quick_gelu=True), image_size=(48, 48)))


@pytest.mark.parametrize("variant", huggingface.VARIANTS)
def test_huggingface(variant: str) -> None:
    check_rebuilt(huggingface_adapter.from_module(huggingface.VARIANTS[variant](), image_size=(32, 32)))


def test_huggingface_at_another_size_and_with_another_epsilon() -> None:
    for build in (huggingface.vit, huggingface.dinov2_with_registers, huggingface.siglip_vision):
        for image_size in (24, 48):
            check_rebuilt(huggingface_adapter.from_module(build(), image_size=(image_size, image_size)))
    for with_epsilon in (huggingface.clip_vision, huggingface.siglip_vision):
        check_rebuilt(huggingface_adapter.from_module(with_epsilon(layer_norm_eps=1e-3), image_size=(32, 32)))


def test_it_is_a_frozen_copy_in_evaluation_mode() -> None:
    teacher = load_teacher(timm.tiny())
    fingerprint = teacher.fingerprint()
    random_state = torch.get_rng_state()
    rebuilt = RebuiltTeacher(teacher)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(weight.requires_grad for weight in rebuilt.parameters())
    assert not any(part.training for part in rebuilt.modules())
    assert not any(isinstance(part, type(teacher.network)) for part in rebuilt.modules())
    with torch.no_grad():
        for weight in rebuilt.parameters():
            nn.init.zeros_(weight)
    assert teacher.fingerprint() == fingerprint


def test_other_images_and_grids_are_refused() -> None:
    teacher = load_teacher(timm.tiny())
    with pytest.raises(ValueError, match=r"images of \(32, 32\), not \(40, 32\)"):
        RebuiltTeacher(teacher)(torch.zeros(1, 3, 40, 32))
    with pytest.raises(ConfigError, match=r"A grid of 3 x 0 patches holds none\. Use 1 or more a side\."):
        RebuiltTeacher(teacher, grid=(3, 0))
    with pytest.raises(ConfigError, match=r"A grid of 0 x 0 patches holds none"):
        LowResolutionTeacher(teacher, 0)
    for images, message in (((1, 3, 31, 32), "at least 32 pixels"), ((3, 32, 32), "must be B x 3 x H x W")):
        with pytest.raises(ValueError, match=message):
            LowResolutionTeacher(teacher, 4)(torch.zeros(images))


@torch.no_grad()
@pytest.mark.parametrize("variant", ["CLIP", *SEVERAL])
def test_it_is_the_teacher_loaded_at_that_size(variant: str) -> None:
    network = open_clip.tiny(quick_gelu=True) if variant == "CLIP" else timm.tiny(**timm.VARIANTS[variant])
    teacher = load_teacher(network)
    images = images_for(teacher)
    for side in (1, 3, 4):  # the last of which is the teacher's own
        shrunk = F.interpolate(images, (8 * side, 8 * side), mode="bilinear", antialias=True)
        check_same_output(LowResolutionTeacher(teacher, side**2)(images), load_teacher(network, image_size=8 * side)(shrunk))


@torch.no_grad()
def test_it_takes_images_of_any_size_and_forgets_fine_detail() -> None:
    network = LowResolutionTeacher(load_teacher(timm.tiny()), 4)
    plain, narrow, wide = (torch.full((1, 3, 64, 48), 0.5) for _ in range(3))
    narrow += 0.4 * (torch.arange(48) % 2 * 2 - 1)
    wide += 0.4 * (torch.arange(48) // 12 % 2 * 2 - 1)
    of_plain, of_narrow, of_wide = (network(images).embedding for images in (plain, narrow, wide))
    assert of_plain.shape == (1, 64)
    assert (of_narrow - of_plain).norm() < 0.3 * (of_wide - of_plain).norm()


def test_it_is_evaluated_and_measured_like_a_student() -> None:
    teacher = load_teacher(timm.tiny())
    network = LowResolutionTeacher(teacher, 4)
    embedded = embed(network, teacher, batches_of(images_for(teacher, 5), size=2), device="cpu", autocast=None)
    assert embedded.student.shape == embedded.teacher.shape == (5, 64)
    assert embedded.student_logits.shape == (5, 5)
    tokens, width, hidden = 5, 64, 256
    blocks = 2 * (tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width)
    cost = measure_cost(network, (32, 32))
    assert cost.multiply_adds == 4 * 3 * 8 * 8 * width + blocks + 5 * width
    own = {"pos_embed", "cls_token"}  # positions of 4 patches and a class token, for those of 16 and of the class token
    parameters = sum(value.numel() for name, value in teacher.network.named_parameters() if name not in own)
    assert cost.parameters == parameters + (4 + 1) * width
