"""From a name to a teacher: the forms that are understood, and what is said of others."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sparseformers.errors import MissingExtraError, TeacherError
from sparseformers.teachers import absolute_name, hubs, load_teacher, registry, untrained_teacher
from tests.refusals import refused
from tests.teachers.huggingface_models import clip_vision
from tests.tiny_clip import build_clip, clip_config

FORMS = "Write timm:NAME, timm:NAME@FILE, open_clip:ARCH/TAG, open_clip:ARCH@FILE, hf:REPO or bundled."


def small_vit() -> nn.Module:
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=64, depth=1, num_heads=2)


def test_what_names_no_teacher() -> None:
    for name, remedy in (
        ("tim:vit_tiny_patch16_224", f"Did you mean 'timm'? {FORMS}"),
        ("openclip:ViT-B-32/openai", f"Did you mean 'open_clip'? {FORMS}"),
        ("vit_tiny_patch16_224", f"Did you mean 'timm:vit_tiny_patch16_224'? {FORMS}"),
        ("bundle", f"Did you mean 'bundled'? {FORMS}"),
        *((name, FORMS) for name in ("timm", "timm:", "hf:", "timm:vit_tiny@", "open_clip:ViT-B-32@", "bundled:224", "")),
    ):
        with refused(TeacherError, f"'{name}' names no teacher.", remedy):
            load_teacher(name)


def test_each_form_reaches_its_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, adapter, function, arguments in (
        ("timm:vit.tag", "timm", "from_hub", ("vit.tag",)),
        ("timm:vit@a/b@c.pth", "timm", "from_file", ("vit", Path("a/b@c.pth"))),
        ("open_clip:ViT-B/32/openai", "open_clip", "from_hub", ("ViT-B/32/openai",)),
        ("open_clip:ViT-B-32@a.pth", "open_clip", "from_file", ("ViT-B-32", Path("a.pth"))),
        ("hf:owner/name", "huggingface", "from_hub", ("owner/name",)),
        ("hf:some@folder", "huggingface", "from_hub", ("some@folder",)),
    ):
        calls: list[Any] = []
        module = importlib.import_module(f"sparseformers.teachers.{adapter}")
        monkeypatch.setattr(module, function, lambda *given, calls=calls, **options: calls.append((given, options)))
        load_teacher(name, image_size=64, crop=0.5)
        place = {"place": None} if function == "from_file" else {}
        assert calls == [(arguments, {"image_size": (64, 64), "crop": 0.5, **place})]


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda wanted: None)
    for name, package, extra in (
        ("open_clip:ViT-B-32/openai", "open_clip", "open-clip"),
        ("hf:owner/name", "transformers", "huggingface"),
    ):
        remedy = f"Install it with: pip install 'sparseformers[{extra}]'."
        with refused(MissingExtraError, f"The package '{package}' is not installed.", remedy):
            load_teacher(name)


def test_a_library_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, package, oldest, newest in (
        ("timm:vit_tiny_patch16_224", "timm", "1.0.21", "1.0.31"),
        ("open_clip:ViT-B-32/openai", "open_clip_torch", "2.30", "3.3"),
        ("hf:owner/name", "transformers", "4.52", "5.23"),
    ):
        for installed in ("0.9.16", "1.0.9"):
            monkeypatch.setattr(hubs, "version", lambda _package, installed=installed: installed)
            problem = f"{package} {installed} is too old; versions {oldest} to {newest} are tested."
            with refused(TeacherError, problem, f"Upgrade it with: pip install '{package}>={oldest}'."):
                load_teacher(name)
        for installed in (oldest, f"{oldest}.0", "9.0rc1"):
            monkeypatch.setattr(hubs, "version", lambda _package, installed=installed: installed)
            hubs.check_version(package)


def test_modules_of_every_host_library() -> None:
    assert type(load_teacher(clip_vision())).__name__ == "HuggingFaceTeacher"
    assert type(load_teacher(build_clip(clip_config()))).__name__ == "OpenClipTeacher"
    teacher = load_teacher(small_vit(), image_size=64)
    assert type(teacher).__name__ == "TimmTeacher"
    assert load_teacher(teacher) is teacher
    with pytest.raises(TeacherError, match="Linear is windowed, convolutional or otherwise not a plain vision transformer"):
        load_teacher(nn.Linear(2, 2))


def test_what_is_neither_a_name_nor_a_network(tmp_path: Path) -> None:
    for wrong in (None, 3, tmp_path):
        problem = f"A teacher is a name or a network (a torch.nn.Module), not {type(wrong).__name__}."
        with refused(TeacherError, problem, FORMS.replace("Write", "Names are")):
            load_teacher(wrong)  # type: ignore[arg-type]


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
