"""Hugging Face's vision towers as teachers: identity in every variant, preprocessing, and what is refused."""

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from sparseformers.config import CLIP_MEAN, CLIP_STD, HALF
from sparseformers.errors import TeacherError, WeightsError
from sparseformers.inheritance import inherit
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.teachers import huggingface as adapter
from tests.refusals import refused
from tests.teachers.huggingface_models import VARIANTS, clip, clip_vision, dinov2, dinov2_with_registers, save, siglip_vision, vit
from tests.teachers.identity import check_identity, check_same, images_for


@pytest.mark.parametrize("variant", VARIANTS)
def test_identity(variant: str, tmp_path: Path) -> None:
    network = VARIANTS[variant]()
    from_folder = load_teacher(save(network, tmp_path))
    check_identity(from_folder)
    # A module and its folder are one teacher.
    from_module = load_teacher(network, image_size=32)
    assert from_module.anatomy == from_folder.anatomy
    normalised = from_folder.normalise(images_for(from_folder))
    assert_close(from_module.embed(normalised).embedding, from_folder.embed(normalised).embedding)


FIVE = {name: VARIANTS[name] for name in ("ViT", "DINOv2", "DINOv2 with registers", "CLIP's tower", "SigLIP's tower")}


def at_lower_resolution(network: Any, teacher: Teacher, side: int) -> Any:
    """transformers' own model of the same weights for smaller images, its positions fitted to the fewer patches."""
    config = copy.deepcopy(network.config)
    config.image_size = side
    lower, state = type(network)(config).eval(), network.state_dict()
    (name,) = [name for name in state if name.endswith(("position_embeddings", "position_embedding.weight"))]
    patches = side // teacher.patch_size
    fitted = teacher.positions_on(patches, patches).flatten(1).T
    of_prefix = state[name].flatten(0, -2)[: -teacher.patch_tokens]
    state[name] = torch.cat([of_prefix, fitted]).view_as(lower.state_dict()[name])
    lower.load_state_dict(state)
    return lower


@torch.no_grad()
@pytest.mark.parametrize("variant", FIVE)
def test_a_new_student_is_transformers_own_model_at_a_lower_resolution(variant: str) -> None:
    network: Any = FIVE[variant]()
    teacher = adapter.from_module(network, image_size=(32, 32))
    student = inherit(teacher, tokens=4).student.eval()
    images = images_for(teacher)
    smaller = F.interpolate(teacher.normalise(images), size=(16, 16), mode="bilinear", antialias=True)
    theirs = at_lower_resolution(network, teacher, 16)(pixel_values=smaller)
    ours = student(images)
    expected = theirs.last_hidden_state[:, 0] if variant == "ViT" else theirs.pooler_output
    check_same(ours.embedding, expected, tolerance=1e-5)
    if variant != "CLIP's tower":  # whose tokens are given out before the final norm
        check_same(ours.tokens, theirs.last_hidden_state, tolerance=1e-5)
    assert float((ours.embedding - teacher(images).embedding).abs().max()) > 1e-2  # it is not the teacher at its own


def outputs_of(teacher: Teacher, network: nn.Module) -> tuple[Any, Any]:
    """The outputs of the teacher and of the whole model of transformers for the same images."""
    images = images_for(teacher)
    return teacher(images), network(pixel_values=teacher.normalise(images))


def test_the_embedding_and_logits_of_a_vit(tmp_path: Path) -> None:
    network = vit(kind="ViTForImageClassification", num_labels=5, id2label=dict(enumerate("abcde")))
    teacher = load_teacher(save(network, tmp_path))
    ours, theirs = outputs_of(teacher, network)
    assert_close(ours.logits, theirs.logits)
    assert teacher.identity.class_names == tuple("abcde")
    assert teacher.identity.source == str(tmp_path)


@pytest.mark.parametrize("build", [dinov2, dinov2_with_registers, siglip_vision, clip_vision])
def test_the_embedding_is_the_pooled_output(build: Any) -> None:
    network = build()
    ours, theirs = outputs_of(load_teacher(network, image_size=32), network)
    assert_close(ours.embedding, theirs.pooler_output)
    assert ours.logits is None


def test_the_embedding_of_clip_is_its_projected_one(tmp_path: Path) -> None:
    network = clip_vision(kind="CLIPVisionModelWithProjection")
    teacher = load_teacher(save(network, tmp_path / "tower"))
    ours, theirs = outputs_of(teacher, network)
    assert teacher.anatomy.projection == 24
    assert_close(ours.embedding, theirs.image_embeds)
    whole = clip()
    teacher = load_teacher(save(whole, tmp_path / "whole"))
    images = images_for(teacher)
    features = whole.vision_model(pixel_values=teacher.normalise(images)).pooler_output
    assert teacher.anatomy.projection == 16
    assert_close(teacher(images).embedding, whole.visual_projection(features))


def test_a_classifier_that_is_not_inherited_is_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = save(dinov2(kind="Dinov2ForImageClassification", num_labels=5), tmp_path)
    with caplog.at_level(logging.WARNING, logger=adapter.__name__):
        teacher = load_teacher(name)
    assert teacher.anatomy.classes is None
    assert f"The classifier of '{name}' is not inherited: it takes more than the image embedding." in caplog.text


CROPPED = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True, "resample": 3}
OLD = {"size": 32, "crop_size": 32, "do_center_crop": True, "resample": 2, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}


@pytest.mark.parametrize(
    ("build", "processor", "expected"),
    [
        (vit, {}, ((32, 32), 1.0, "bilinear", "squash", HALF, HALF)),
        (vit, CROPPED, ((32, 32), 0.8, "bicubic", "shorter", HALF, HALF)),
        (clip_vision, {}, ((32, 32), 1.0, "bicubic", "shorter", CLIP_MEAN, CLIP_STD)),
        (clip_vision, OLD, ((32, 32), 1.0, "bilinear", "shorter", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))),
        (siglip_vision, {}, ((32, 32), 1.0, "bicubic", "squash", HALF, HALF)),
        (siglip_vision, {"do_normalize": False}, ((32, 32), 1.0, "bicubic", "squash", (0.0,) * 3, (1.0,) * 3)),
        (dinov2, {}, ((224, 224), 0.875, "bicubic", "shorter", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
    ],
)
def test_preprocessing(build: Any, processor: dict[str, Any], expected: tuple[Any, ...], tmp_path: Path) -> None:
    name = save(build(), tmp_path, processor)
    read = load_teacher(name).preprocessing
    assert (read.size, read.crop, read.interpolation, read.resize, read.mean, read.std) == expected
    (tmp_path / "preprocessor_config.json").unlink()
    assert load_teacher(name, crop=0.7).preprocessing == load_teacher(build(), crop=0.7).preprocessing


def test_loading_is_quiet_and_leaves_the_librarys_logging_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = save(clip(), tmp_path)
    capfd.readouterr()
    verbosity = hf.logging.get_verbosity()
    load_teacher(name)
    assert capfd.readouterr() == ("", "")
    assert hf.logging.get_verbosity() == verbosity
    assert hf.logging.is_progress_bar_enabled()


def test_refused_types(tmp_path: Path) -> None:
    for model_type, reason in (
        ("swin", "it is windowed"),
        ("deit", "it has a distillation token"),
        ("resnet", "its type 'resnet' is none of vit, vit_mae, ijepa, dinov2"),
        ("made_up", "its type 'made_up' is none of vit"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        problem = f"'hf:{tmp_path}' cannot be inherited from yet: {reason}"
        with refused(TeacherError, problem, "timm:vit_base_patch16_224.augreg_in21k_ft_in1k"):
            load_teacher(f"hf:{tmp_path}")


def test_refused_modules() -> None:
    for network, reason in (
        (nn.Linear(2, 2), "its type 'Linear' is none of vit"),
        (siglip_vision(vision_use_head=False), "its SigLIP tower has no pooling head"),
        (vit(hidden_act="tanh"), "its activation is tanh"),
    ):
        with pytest.raises(TeacherError, match=reason):
            adapter.from_module(network)


def test_a_missing_weight_is_an_error(tmp_path: Path) -> None:
    name = save(vit(), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {key: value for key, value in state.items() if "layernorm_before" not in key}
    assert len(kept) < len(state)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with refused(WeightsError, "layernorm_before", "Check that they belong to its config.json."):
        load_teacher(name)


def test_a_damaged_folder_and_a_missing_one(tmp_path: Path) -> None:
    name = save(vit(), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with refused(WeightsError, f"The folder '{tmp_path}' cannot be read as a model", "fetch it again if it was cut short"):
        load_teacher(name)
    (tmp_path / "config.json").unlink()
    with pytest.raises(TeacherError, match="holds no model of transformers"):
        load_teacher(name)
    with refused(WeightsError, f"There is no folder '{tmp_path / 'nothing'}'.", "Give an existing folder"):
        load_teacher(f"hf:{tmp_path / 'nothing'}")
