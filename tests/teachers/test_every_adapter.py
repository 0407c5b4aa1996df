"""What the adapters of all host libraries have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sparseformers.errors import TeacherError
from sparseformers.teachers import load_teacher
from tests.refusals import refused
from tests.teachers import huggingface_models as huggingface
from tests.teachers import test_open_clip as open_clip
from tests.teachers import test_timm as timm
from tests.teachers.identity import check_identity

Build = Callable[[], Any]
NETWORKS: dict[str, Build] = {
    "timm": timm.tiny,
    "timm, dynamic size": partial(timm.tiny, dynamic_img_size=True),
    "timm, registers without positions": partial(timm.tiny, reg_tokens=2, no_embed_class=True),
    "OpenCLIP": open_clip.tiny,
    "OpenCLIP's tower of timm": open_clip.siglip,
    "ViT": huggingface.vit,
    "DINOv2": huggingface.dinov2,
    "DINOv2 with registers": huggingface.dinov2_with_registers,
    "CLIP's tower": huggingface.clip_vision,
    "SigLIP's tower": huggingface.siglip_vision,
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_image_size_resamples_positions(build: Build) -> None:
    teacher = load_teacher(build(), image_size=48)
    assert teacher.preprocessing.size == (48, 48)
    assert teacher.patch_tokens == 36
    check_identity(teacher)
    with refused(TeacherError, "image size of 7 does not hold a single patch of 8 x 8 pixels.", "Use a multiple of 8"):
        load_teacher(build(), image_size=7)


@pytest.mark.parametrize(
    ("build", "look"),
    [(timm.tiny, nn.Module.__call__), (open_clip.tiny, open_clip.CLIP.encode_image), (huggingface.vit, nn.Module.__call__)],
)
def test_the_module_passed_in_stays_as_it_is(build: Build, look: Callable[[nn.Module, torch.Tensor], Any]) -> None:
    network = build().half()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    load_teacher(network.train(), image_size=48)
    assert network.training
    assert all(weight.requires_grad for weight in network.parameters())
    assert_close(network.state_dict(), before, rtol=0, atol=0)
    look(network, torch.rand(2, 3, 32, 32).half())  # it takes images of its own size


@pytest.mark.usefixtures("dead_hub")
@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("timm:vit_tiny_patch16_224.augreg_in21k", "timm:vit_tiny_patch16_224.augreg_in21k@FILE"),
        ("open_clip:ViT-B-32/openai", "open_clip:ViT-B-32-quickgelu@FILE"),
        ("hf:owner/name", "hf:FOLDER"),
    ],
)
def test_a_hub_that_cannot_be_reached(name: str, by_hand: str) -> None:
    remedy = f"Check the network, or fetch the file elsewhere and give it as {by_hand}; 'bundled' needs no hub."
    with refused(TeacherError, f"The weights of '{name}' could not be fetched (", remedy):
        load_teacher(name)
