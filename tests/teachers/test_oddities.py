"""What teachers with something odd about them end in: their own answer, or a sentence; never another answer in silence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers as hf
from torch import nn

from sparseformers.config import GridConfig
from sparseformers.errors import ConfigError, SparseFormersError, TeacherError, WeightsError
from sparseformers.inheritance import inherit
from sparseformers.integrations.timm_network import build_network
from sparseformers.teachers import load_teacher
from tests.refusals import refused
from tests.teachers import huggingface_models as huggingface
from tests.teachers.identity import check_identity, check_same, images_for, randomise
from tests.teachers.timm_families import FAMILIES, NAFLEX, SIZED, small


def test_a_naflex_network_with_channels_first() -> None:
    architecture, _ = FAMILIES["NaFlexViT"]
    network = randomise(timm.create_model(architecture, **NAFLEX, patchify_channels_last=False))
    check_identity(load_teacher(network, image_size=64))


@torch.no_grad()
def test_a_distilled_teachers_logits__as_a_guest_of_timm() -> None:
    student = inherit(load_teacher(small("DeiT, distilled"), image_size=64), tokens=16).student.eval()
    network, images = build_network(student).eval(), torch.rand(2, 3, 64, 64)
    output = student(images)
    assert output.logits is not None
    check_same(network(student.normalise(images)), output.logits, tolerance=1e-6)
    network.reset_classifier(7)
    assert network(student.normalise(images)).shape == (2, 7)
    network.reset_classifier(0)
    check_same(network(student.normalise(images)), output.embedding, tolerance=1e-6)


def changed(part: str, to: Any) -> nn.Module:
    """A network with something else in the place of a part."""
    network = randomise(timm.create_model("vit_tiny_patch16_224", **SIZED))
    holder, _, name = part.rpartition(".")
    setattr(network.get_submodule(holder), name, to)
    return network


PADDED: dict[str, Any] = {**SIZED, "img_size": 68, "dynamic_img_size": True, "dynamic_img_pad": True}
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "another activation in one block": (lambda: changed("blocks.1.mlp.act", nn.ReLU()), "its blocks differ from one another"),
    "other heads in one block": (lambda: changed("blocks.1.attn.num_heads", 4), "its blocks differ from one another"),
    "a block that is none": (lambda: changed("blocks.1", nn.Identity()), "its blocks differ from one another"),
    "a head without bias": (lambda: changed("head", nn.Linear(64, 4, bias=False)), "its classifier has no bias"),
    "a head of two layers": (lambda: changed("head", nn.Sequential(nn.Dropout(), nn.Linear(64, 4))), "its head is a Sequential"),
    "grey images": (lambda: timm.create_model("vit_tiny_patch16_224", **SIZED, in_chans=1), "do not have three channels"),
    "padding": (lambda: timm.create_model("vit_tiny_patch16_224", **PADDED), "it pads images to whole patches"),
    "convolutions": (lambda: timm.create_model("vit_tiny_patch16_224", **SIZED, mlp_layer=timm.layers.ConvMlp), "not linear"),
    "grey images of transformers": (lambda: huggingface.vit(num_channels=1), "do not have three channels"),
    "a backbone": (lambda: hf.Dinov2Backbone(hf.Dinov2Config(**huggingface.SIZES)), "gives feature maps, not an embedding"),
    "tall images of BEiT": (
        lambda: huggingface.beit(use_relative_position_bias=True, image_size=(64, 32)),
        "transformers runs it on square images alone",
    ),
}


def test_refused_with_the_reason() -> None:
    for build, reason in REFUSED.values():
        with pytest.raises(TeacherError, match=f"cannot be inherited from yet: .*{reason}"):
            load_teacher(build())


def test_modules_in_half_precision__wrapped__or_that_return_tuples() -> None:
    network = small("DINOv3")
    check_identity(load_teacher(network.half()))
    check_identity(load_teacher(torch.compile(network, backend="eager")))
    check_identity(load_teacher(nn.DataParallel(network)))
    check_identity(load_teacher(huggingface.vit(return_dict=False)))
    check_identity(load_teacher(huggingface.dinov2(num_register_tokens=5)))


@torch.no_grad()
def test_poolers_and_whole_models__from_folders(tmp_path: Path) -> None:
    kinds = {"image_size": 32, "use_relative_position_bias": True}
    config = hf.Data2VecVisionConfig(**{**huggingface.TOWER, **kinds})
    for pooler, pooling in ((True, "average"), (False, "token")):
        network = randomise(hf.Data2VecVisionModel(config, add_pooling_layer=pooler))
        teacher = load_teacher(huggingface.save(network, tmp_path / f"data2vec-{pooler}"))
        assert teacher.anatomy.pooling == pooling
        check_identity(teacher)
    whole = hf.Aimv2Config(text_config=huggingface.TEXT, vision_config=huggingface.TOWER, projection_dim=16)
    network = randomise(hf.Aimv2Model(whole))
    teacher = load_teacher(huggingface.save(network, tmp_path / "aimv2"))
    assert teacher.anatomy.projection == 16
    check_same(teacher(images_for(teacher)).embedding, load_teacher(network)(images_for(teacher)).embedding, tolerance=1e-6)


def test_images_of_parts_of_patches() -> None:
    network = small("DINOv3")
    with refused(TeacherError, "An image size of 60 is not of whole patches of 8 x 8 pixels", "Use 56 or 64"):
        load_teacher(network, image_size=60)
    own = randomise(timm.create_model("vit_tiny_patch16_224", **{**SIZED, "img_size": 68}))
    assert "leaves out the last 4 rows and 4 columns" in " ".join(inherit(own, tokens=16).report.notes)


def test_weights_that_are_no_numbers() -> None:
    network = small("AIMv2")
    network.blocks[1].mlp.fc2.weight.data[0, 0] = float("nan")
    with refused(WeightsError, "are not all finite numbers (blocks.1.mlp.fc2.weight)", "another checkpoint"):
        inherit(network, tokens=16)


def test_sizes_that_are_none__and_words_of_inherit_that_it_does_not_know() -> None:
    network = small("DINOv3")
    for size in ("64", 64.0, (64,), (64, 64, 64), (64.5, 64), 10**6, 0, -64):
        with pytest.raises(SparseFormersError, match="An image size is a number of pixels"):
            load_teacher(network, image_size=size)  # type: ignore[arg-type]
    for words, told in (
        ({"front": 5}, "There is no front '5'"),
        ({"front": GridConfig(tokens=16), "tokens": 9}, "config has 16 tokens, and 9 are asked for"),
        ({"tokens": True}, "tokens is a whole number, not True"),
        ({"freeze": 1.5}, "freeze is a whole number, not 1.5"),
    ):
        with refused(ConfigError, told):
            inherit(network, **words)  # type: ignore[arg-type]
    assert load_teacher(network, image_size=[64, 64]).preprocessing.size == (64, 64)
    assert inherit(network, front=GridConfig(tokens=9, patch_size=7)).student.config == inherit(network, tokens=9).student.config


def test_images_below_what_a_student_sees__are_refused_before_a_training() -> None:
    network = randomise(timm.create_model("vit_tiny_patch16_224", **{**SIZED, "img_size": 24}))
    with refused(TeacherError, "The teacher sees images of 24 x 24 pixels, and a student none below 32.", "example 32"):
        inherit(load_teacher(network))
    inherit(load_teacher(network, image_size=32))
