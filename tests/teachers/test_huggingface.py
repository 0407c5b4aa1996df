"""Hugging Face's vision towers as teachers: identity in every variant, preprocessing, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from sparseformers.config import CLIP_MEAN, CLIP_STD, HALF
from sparseformers.errors import MissingExtraError, TeacherError, WeightsError
from sparseformers.inherit import inherit
from sparseformers.teachers import Teacher, huggingface_towers, load_teacher
from sparseformers.teachers import huggingface as adapter
from tests.teachers.identity import check_identity, check_same, images_for, randomise

import transformers as hf  # isort: skip  # after the adapter, which makes torchvision importable

SIZES: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
TOWER: dict[str, Any] = {**SIZES, "intermediate_size": 96}
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 8,
}


def vit(*, kind: str = "ViTModel", **options: Any) -> nn.Module:
    return randomise(getattr(hf, kind)(hf.ViTConfig(**{**TOWER, **options})))


def dinov2(*, kind: str = "Dinov2Model", **options: Any) -> nn.Module:
    return randomise(getattr(hf, kind)(hf.Dinov2Config(**{**SIZES, "mlp_ratio": 2, **options})))


def dinov2_with_registers(**options: Any) -> nn.Module:
    config = hf.Dinov2WithRegistersConfig(**{**SIZES, "mlp_ratio": 2, "num_register_tokens": 3, **options})
    return randomise(hf.Dinov2WithRegistersModel(config))


def clip_vision(*, kind: str = "CLIPVisionModel", **options: Any) -> nn.Module:
    return randomise(getattr(hf, kind)(hf.CLIPVisionConfig(**{**TOWER, "projection_dim": 24, **options})))


def clip() -> nn.Module:
    vision = {**TOWER, "projection_dim": 40}  # at odds with the whole's on purpose: the whole's counts
    return randomise(hf.CLIPModel(hf.CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=16)))


def siglip_vision(**options: Any) -> nn.Module:
    return randomise(hf.SiglipVisionModel(hf.SiglipVisionConfig(**{**TOWER, **options})))


def siglip() -> nn.Module:
    return randomise(hf.SiglipModel(hf.SiglipConfig(text_config=TEXT, vision_config=TOWER)))


def save(network: nn.Module, folder: Path, processor: dict[str, Any] | None = None) -> str:
    """Saves a model as a repository holds it, its preprocessing at its own size by default, and names it as a teacher."""
    network.save_pretrained(folder)
    settings = {"size": {"height": 32, "width": 32}, "do_center_crop": False} if processor is None else processor
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return f"hf:{folder}"


VARIANTS: dict[str, Any] = {
    "ViT": vit,
    "ViT of odd depth": lambda: vit(num_hidden_layers=3),
    "ViT without biases of query, key and value": lambda: vit(qkv_bias=False),
    "ViT with quick GELU": lambda: vit(hidden_act="quick_gelu"),
    "ViT with another epsilon": lambda: vit(layer_norm_eps=1e-3),
    "ViT with a classifier": lambda: vit(kind="ViTForImageClassification", num_labels=5),
    "DINOv2": dinov2,
    "DINOv2 with SwiGLU": lambda: dinov2(use_swiglu_ffn=True),
    "DINOv2 with a classifier": lambda: dinov2(kind="Dinov2ForImageClassification", num_labels=5),
    "DINOv2 with registers": dinov2_with_registers,
    "DINOv2 with registers and SwiGLU": lambda: dinov2_with_registers(use_swiglu_ffn=True),
    "CLIP's tower": clip_vision,
    "CLIP's tower with projection": lambda: clip_vision(kind="CLIPVisionModelWithProjection"),
    "CLIP's tower with GELU": lambda: clip_vision(hidden_act="gelu"),
    "CLIP": clip,
    "SigLIP's tower": siglip_vision,
    "SigLIP": siglip,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_identity(variant: str, tmp_path: Path) -> None:
    check_identity(load_teacher(save(VARIANTS[variant](), tmp_path)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_module_and_its_folder_are_one_teacher(variant: str, tmp_path: Path) -> None:
    network = VARIANTS[variant]()
    from_folder = load_teacher(save(network, tmp_path))
    from_module = adapter.from_module(network, image_size=32)
    assert from_module.anatomy == from_folder.anatomy
    images = images_for(from_folder)
    normalised = from_folder.normalise(images)
    assert_close(from_module.embed(normalised).embedding, from_folder.embed(normalised).embedding)


FIVE: dict[str, Any] = {
    "ViT": vit,
    "DINOv2": dinov2,
    "DINOv2 with registers": dinov2_with_registers,
    "CLIP's tower": clip_vision,
    "SigLIP's tower": siglip_vision,
}


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
@pytest.mark.parametrize("looks", [0, 1])
@pytest.mark.parametrize("variant", FIVE)
def test_a_new_student_is_transformers_own_model_at_a_lower_resolution(variant: str, looks: int) -> None:
    network: Any = FIVE[variant]()
    teacher = adapter.from_module(network, image_size=32)
    student = inherit(teacher, tokens=4, looks=looks).student.eval()
    images = images_for(teacher)
    smaller = F.interpolate(teacher.normalise(images), size=(16, 16), mode="bilinear", antialias=True)
    theirs = at_lower_resolution(network, teacher, 16)(pixel_values=smaller)
    ours = student(images)
    expected = theirs.last_hidden_state[:, 0] if variant == "ViT" else theirs.pooler_output
    check_same(ours.embedding, expected, tolerance=1e-5)
    if variant != "CLIP's tower":  # whose tokens are given out before the final norm
        check_same(ours.tokens, theirs.last_hidden_state, tolerance=1e-5)
    assert float((ours.embedding - teacher(images).embedding).abs().max()) > 1e-2  # it is not the teacher at its own


def said(teacher: Teacher, network: nn.Module) -> tuple[Any, Any]:
    """What the teacher and the whole model of transformers say of the same images."""
    images = images_for(teacher)
    return teacher(images), network(pixel_values=teacher.normalise(images))


def test_the_embedding_and_logits_of_a_vit(tmp_path: Path) -> None:
    network = vit(kind="ViTForImageClassification", num_labels=5, id2label=dict(enumerate("abcde")))
    teacher = load_teacher(save(network, tmp_path))
    ours, theirs = said(teacher, network)
    assert_close(ours.logits, theirs.logits)
    assert teacher.identity.class_names == tuple("abcde")
    assert teacher.identity.source == str(tmp_path)


@pytest.mark.parametrize("build", [dinov2, dinov2_with_registers, siglip_vision, clip_vision])
def test_the_embedding_is_the_pooled_output(build: Any, tmp_path: Path) -> None:
    network = build()
    ours, theirs = said(load_teacher(save(network, tmp_path)), network)
    assert_close(ours.embedding, theirs.pooler_output)
    assert ours.logits is None


def test_the_embedding_of_clip_is_its_projected_one(tmp_path: Path) -> None:
    network = clip_vision(kind="CLIPVisionModelWithProjection")
    teacher = load_teacher(save(network, tmp_path))
    ours, theirs = said(teacher, network)
    assert teacher.anatomy.projection == 24
    assert_close(ours.embedding, theirs.image_embeds)


def test_the_projection_of_a_whole_clip(tmp_path: Path) -> None:
    network = clip()
    teacher = load_teacher(save(network, tmp_path))
    images = images_for(teacher)
    features = network.vision_model(pixel_values=teacher.normalise(images)).pooler_output
    assert teacher.anatomy.projection == 16
    assert_close(teacher(images).embedding, network.visual_projection(features))


def test_a_classifier_that_is_not_inherited_is_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = save(dinov2(kind="Dinov2ForImageClassification", num_labels=5), tmp_path)
    with caplog.at_level(logging.WARNING, logger=adapter.__name__):
        teacher = load_teacher(name)
    assert teacher.anatomy.classes is None
    assert f"The classifier of '{name}' is not inherited: it takes more than the image embedding." in caplog.text


@pytest.mark.parametrize("build", [vit, dinov2, dinov2_with_registers, clip_vision, siglip_vision])
def test_image_size_resamples_positions(build: Any, tmp_path: Path) -> None:
    teacher = load_teacher(save(build(), tmp_path), image_size=48)
    assert teacher.preprocessing.size == (48, 48)
    assert teacher.patch_tokens == 36
    check_identity(teacher)


def test_an_image_size_below_one_patch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="image size of 7 does not hold a single patch of 8 x 8 pixels"):
        load_teacher(save(vit(), tmp_path), image_size=7)


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
    read = load_teacher(save(build(), tmp_path, processor)).preprocessing
    assert (read.size, read.crop, read.interpolation, read.resize, read.mean, read.std) == expected


def test_preprocessing_of_a_folder_without_it(tmp_path: Path) -> None:
    name = save(vit(), tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    teacher = load_teacher(name, crop=0.7)
    assert teacher.preprocessing.mean == HALF
    assert teacher.preprocessing.crop == 0.7


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("swin", "it is windowed"),
        ("beit", "its attention has relative positions"),
        ("dinov3_vit", "it uses rotary positions"),
        ("deit", "it has a distillation token"),
        ("resnet", "its type 'resnet' is none of vit, dinov2, dinov2_with_registers, clip or siglip"),
        ("made_up", "its type 'made_up' is none of vit"),
    ],
)
def test_refused_types(model_type: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(TeacherError) as error:
        load_teacher(f"hf:{tmp_path}")
    assert f"'hf:{tmp_path}' cannot be inherited from yet: {reason}" in error.value.problem
    assert "timm:vit_base_patch16_224.augreg_in21k_ft_in1k" in error.value.remedy


def test_refused_modules() -> None:
    with pytest.raises(TeacherError, match="its type 'Linear' is none of vit"):
        adapter.from_module(nn.Linear(2, 2))
    with pytest.raises(TeacherError, match="its SigLIP tower has no pooling head"):
        adapter.from_module(siglip_vision(vision_use_head=False))
    with pytest.raises(TeacherError, match="its activation is tanh"):
        adapter.from_module(vit(hidden_act="tanh"))


def test_a_missing_weight_is_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    name = save(vit(), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {key: value for key, value in state.items() if "layernorm_before" not in key}
    assert len(kept) < len(state)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"do not fit \(missing: .*layernorm_before") as error:
        load_teacher(name)
    assert error.value.remedy == "Check that they belong to its config.json."


def test_a_damaged_folder(tmp_path: Path) -> None:
    name = save(vit(), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(
        WeightsError, match=f"The folder '{tmp_path}' cannot be read as a model .*fetch it again if it was cut short"
    ):
        load_teacher(name)
    (tmp_path / "config.json").unlink()
    with pytest.raises(TeacherError, match="holds no model of transformers"):
        load_teacher(name)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"There is no folder '{tmp_path / 'nothing'}'. Give an existing folder"):
        load_teacher(f"hf:{tmp_path / 'nothing'}")


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(repository: str | None) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(adapter, "expect_hub", unreachable)
    with pytest.raises(TeacherError) as error:
        load_teacher("hf:owner/name")
    assert error.value.problem == "The weights of 'hf:owner/name' could not be fetched (ConnectionError: no route)."
    assert "give it as hf:FOLDER; 'bundled' needs no hub" in error.value.remedy


def test_loading_is_quiet_and_leaves_the_librarys_logging_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = save(clip(), tmp_path)
    capfd.readouterr()
    verbosity = hf.logging.get_verbosity()
    load_teacher(name)
    assert capfd.readouterr() == ("", "")
    assert hf.logging.get_verbosity() == verbosity
    assert hf.logging.is_progress_bar_enabled()


def test_the_module_passed_in_stays_as_it_is() -> None:
    network = vit().half()
    adapter.from_module(network)
    assert all(weight.requires_grad for weight in network.parameters())
    assert all(weight.dtype == torch.float16 for weight in network.parameters())


@pytest.mark.parametrize("installed", ["4.9.2", "4.51.3", "3.0"])
def test_a_version_that_is_too_old(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_towers, "version", lambda _name: installed)
    for load in (lambda: load_teacher("hf:owner/name"), lambda: adapter.from_module(vit())):
        with pytest.raises(TeacherError) as error:
            load()
        assert error.value.problem == f"transformers {installed} is too old; versions 4.52 to 5.23 are tested."
        assert error.value.remedy == "Upgrade it with: pip install 'transformers>=4.52'."


@pytest.mark.parametrize("installed", ["4.52.0", "5.0.0rc1", "6.1"])
def test_a_version_that_is_not_too_old(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_towers, "version", lambda _name: installed)
    assert adapter.from_module(vit()).depth == 2


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError) as error:
        load_teacher("hf:owner/name")
    assert error.value.problem == "The package 'transformers' is not installed."
    assert error.value.remedy == "Install it with: pip install 'sparseformers[huggingface]'."
