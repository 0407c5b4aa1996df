"""From a name to a teacher: the forms that are understood, and what is said of others."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from sparseformers.errors import MissingExtraError, TeacherError
from sparseformers.teachers import absolute_name, load_teacher, registry, untrained_teacher
from sparseformers.teachers import timm as timm_adapter

FORMS = "Write timm:NAME, timm:NAME@FILE, open_clip:ARCH/TAG, open_clip:ARCH@FILE, hf:REPO or bundled."


def small_vit() -> nn.Module:
    return timm_adapter.VisionTransformer(img_size=32, patch_size=8, embed_dim=64, depth=1, num_heads=2)


def test_a_teacher_is_returned_as_it_is() -> None:
    teacher = load_teacher(small_vit())
    assert load_teacher(teacher) is teacher


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("tim:vit_tiny_patch16_224", f"Did you mean 'timm'? {FORMS}"),
        ("openclip:ViT-B-32/openai", f"Did you mean 'open_clip'? {FORMS}"),
        ("vit_tiny_patch16_224", f"Did you mean 'timm:vit_tiny_patch16_224'? {FORMS}"),
        ("bundle", f"Did you mean 'bundled'? {FORMS}"),
        ("timm", FORMS),
        ("timm:", FORMS),
        ("hf:", FORMS),
        ("timm:vit_tiny_patch16_224@", FORMS),
        ("open_clip:ViT-B-32@", FORMS),
        ("bundled:224", FORMS),
        ("", FORMS),
    ],
)
def test_what_names_no_teacher(name: str, remedy: str) -> None:
    with pytest.raises(TeacherError) as error:
        load_teacher(name)
    assert error.value.problem == f"'{name}' names no teacher."
    assert error.value.remedy == remedy


@pytest.mark.parametrize(
    ("name", "adapter", "function", "arguments"),
    [
        ("timm:vit.tag", "timm", "from_hub", ("vit.tag",)),
        ("timm:vit@a/b@c.pth", "timm", "from_file", ("vit", Path("a/b@c.pth"))),
        ("open_clip:ViT-B/32/openai", "open_clip", "from_hub", ("ViT-B/32/openai",)),
        ("open_clip:ViT-B-32@a.pth", "open_clip", "from_file", ("ViT-B-32", Path("a.pth"))),
        ("hf:owner/name", "huggingface", "from_hub", ("owner/name",)),
        ("hf:some@folder", "huggingface", "from_hub", ("some@folder",)),
    ],
)
def test_each_form_reaches_its_adapter(
    name: str, adapter: str, function: str, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    module = importlib.import_module(f"sparseformers.teachers.{adapter}")
    monkeypatch.setattr(module, function, lambda *given, **options: calls.append((given, options)))
    load_teacher(name, image_size=64, crop=0.5)
    assert calls == [(arguments, {"image_size": 64, "crop": 0.5})]


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("open_clip:ViT-B-32/openai", "open_clip", "open-clip"),
        ("hf:owner/name", "transformers", "huggingface"),
        ("bundled", "onnx", "demo"),
    ],
)
def test_a_library_that_is_not_installed(name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda wanted: None if wanted == package else find(wanted))
    with pytest.raises(MissingExtraError) as error:
        load_teacher(name)
    assert error.value.problem == f"The package '{package}' is not installed."
    assert error.value.remedy == f"Install it with: pip install 'sparseformers[{extra}]'."


def test_an_untrained_teacher_has_the_anatomy_of_the_trained_one() -> None:
    teacher = untrained_teacher("vit_tiny_patch16_224")
    assert (teacher.depth, teacher.anatomy.embedding_width, teacher.anatomy.classes) == (12, 192, 1000)
    with pytest.raises(TeacherError, match="its ResNet is windowed, convolutional"):
        untrained_teacher("resnet18")


def test_a_name_that_holds_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exported").mkdir()
    here = {
        "timm:vit_tiny@w.safetensors": f"timm:vit_tiny@{tmp_path}/w.safetensors",
        "open_clip:ViT-B-32@w.pth": f"open_clip:ViT-B-32@{tmp_path}/w.pth",
        "open_clip:clip/config.json@w.pth": f"open_clip:{tmp_path}/clip/config.json@{tmp_path}/w.pth",
        "open_clip:ViT-B-32/openai": "open_clip:ViT-B-32/openai",
        "hf:exported": f"hf:{tmp_path}/exported",
        "hf:owner/name": "hf:owner/name",
        "bundled": "bundled",
    }
    assert {name: absolute_name(name) for name in here} == here
