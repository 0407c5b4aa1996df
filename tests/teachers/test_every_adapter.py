"""What the adapters of all host libraries have in common."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm as timm_library
import torch
from torch import nn
from torch.testing import assert_close

from sparseformers.errors import TeacherError, WeightsError
from sparseformers.inheritance import inherit
from sparseformers.teachers import load_teacher
from tests.refusals import refused
from tests.teachers import huggingface_models as huggingface
from tests.teachers import test_open_clip as open_clip
from tests.teachers import test_timm as timm
from tests.teachers.identity import check_identity, check_same, images_for
from tests.tiny import ARCHITECTURE

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


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_images_that_are_not_square(build: Build) -> None:
    for size in ((64, 32), (32, 80)):
        teacher = load_teacher(build(), image_size=size)
        assert teacher.preprocessing.size == size
        check_identity(teacher)
        student = inherit(teacher).student
        rows, columns = (max(2, round(side / 8 / 2)) for side in size)
        cells = student(images_for(teacher)).rois[0, 0]
        assert (len(cells), len(cells[:, 0].unique()), len(cells[:, 1].unique())) == (rows * columns, columns, rows)


@pytest.mark.parametrize(
    ("build", "size"), [(timm.tiny, "img_size"), (open_clip.tiny, "image_size"), (huggingface.vit, "image_size")]
)
def test_a_network_that_is_made_for_tall_images(build: Callable[..., Any], size: str, tmp_path: Path) -> None:
    network = build(**{size: (64, 32)})
    teacher = load_teacher(network)
    assert teacher.preprocessing.size == (64, 32)
    check_identity(teacher)
    told = load_teacher(network, image_size=(64, 32))
    check_same(told(images_for(teacher)).embedding, teacher(images_for(teacher)).embedding, tolerance=0)
    if build is huggingface.vit:
        with refused(TeacherError, "resamples square grids of positions alone", ""):
            load_teacher(network, image_size=48)
        saved = huggingface.save(network, tmp_path, {"size": {"height": 64, "width": 32}})
        assert load_teacher(saved).preprocessing.size == (64, 32)


def test_patches_that_are_not_square_are_refused() -> None:
    for build in (timm.tiny, open_clip.tiny):
        with refused(TeacherError, "its patches are 16 x 8 pixels, and not squares", "Choose another"):
            load_teacher(build(patch_size=(16, 8)))


def test_a_file_whose_positions_are_of_tall_images(tmp_path: Path) -> None:
    for size, known in (((96, 32), False), ((128, 32), True)):  # 12 patches make no square, 16 do
        network = timm_library.create_model(ARCHITECTURE, img_size=size, num_classes=3)
        torch.save(network.state_dict(), tmp_path / "tall.pth")
        name = f"timm:{ARCHITECTURE}@{tmp_path / 'tall.pth'}"
        teacher = load_teacher(name, image_size=size)
        assert torch.equal(teacher.patch_embedding().positions, load_teacher(network).patch_embedding().positions)
        if known:
            assert load_teacher(name).preprocessing.size == (64, 64)
        else:
            problem = "The weights have positions for 12 patches, which make no square."
            with refused(WeightsError, problem, "--image-size 256x128"):
                load_teacher(name)


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
def test_a_hub_that_cannot_be_reached() -> None:
    for name, by_hand in (
        ("timm:vit_tiny_patch16_224.augreg_in21k", "timm:vit_tiny_patch16_224.augreg_in21k@FILE"),
        ("open_clip:ViT-B-32/openai", "open_clip:ViT-B-32-quickgelu@FILE"),
        ("hf:owner/name", "hf:FOLDER"),
    ):
        remedy = f"Check the network, or fetch the file elsewhere and give it as {by_hand}; 'bundled' needs no hub."
        with refused(TeacherError, f"The weights of '{name}' could not be fetched (", remedy):
            load_teacher(name)
