"""Configuration files of OpenCLIP's models as teachers, and the text towers that belong to teachers."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.testing import assert_close

from sparseformers.errors import MissingExtraError, TeacherError, WeightsError
from sparseformers.teachers import load_teacher
from sparseformers.teachers import open_clip_names as names
from sparseformers.teachers import open_clip_text as adapter
from sparseformers.teachers.registry import load_text_tower, named_templates
from tests.refusals import refused
from tests.teachers.identity import check_identity, images_for
from tests.tiny_clip import PREPROCESSING, SIDE, build_clip, clip_config, write_clip

TEXTS = ["a photo of a sea horse.", "an ant", "the quick brown fox jumps over the lazy dog and then over the whole farm again"]
"""The last one is longer than the context."""


def test_a_configuration_file__is_a_teacher_with_its_own_preprocessing(tmp_path: Path) -> None:
    teacher = load_teacher(write_clip(tmp_path))
    assert teacher.preprocessing.size == (SIDE, SIDE)
    assert list(teacher.preprocessing.mean) == PREPROCESSING["mean"]
    assert list(teacher.preprocessing.std) == PREPROCESSING["std"]
    assert teacher.anatomy.block.activation == "quick_gelu"
    assert teacher.identity.name == f"open_clip:{tmp_path / 'clip.json'}@{tmp_path / 'clip.safetensors'}"
    clip = build_clip(clip_config())
    assert_close(teacher(images_for(teacher)).embedding, clip.encode_image(teacher.normalise(images_for(teacher))))
    check_identity(teacher)


def test_a_configuration_file__in_the_form_of_open_clips_own(tmp_path: Path) -> None:
    name = write_clip(tmp_path)
    (tmp_path / "clip.json").write_text(json.dumps(clip_config()["model_cfg"]))
    teacher = load_teacher(name, image_size=32)
    assert teacher.preprocessing.mean == open_clip.OPENAI_DATASET_MEAN
    assert teacher.patch_tokens == 4


def test_configuration_files_that_are_refused(tmp_path: Path) -> None:
    name, misspelt = write_clip(tmp_path), '{"embed_dim": 8, "vision_cfg": {"wdth": 8}, "text_cfg": {}}'
    for content, problem, remedy in (
        ("{", "is not JSON (", "Write it again, or fetch it again."),
        ("[]", "is no configuration of an OpenCLIP model: it lacks all keys.", "Give an open_clip_config.json"),
        ('{"embed_dim": 8}', "is no configuration of an OpenCLIP model: it lacks vision_cfg, text_cfg.", "Give an open_clip"),
        (misspelt, "OpenCLIP cannot build a model by the configuration", "Compare it with OpenCLIP's own model_configs."),
        (None, "There is no configuration file", "Check the path between 'open_clip:' and the '@'."),
    ):
        (tmp_path / "clip.json").unlink() if content is None else (tmp_path / "clip.json").write_text(content)
        with refused(TeacherError, problem, remedy):
            load_teacher(name)


def test_a_configuration_file__needs_a_file_of_weights(tmp_path: Path) -> None:
    write_clip(tmp_path)
    problem = f"OpenCLIP has no weights for the configuration file '{tmp_path / 'clip.json'}'."
    with refused(TeacherError, problem, f"Name their file: open_clip:{tmp_path / 'clip.json'}@FILE."):
        load_teacher(f"open_clip:{tmp_path / 'clip.json'}")


@pytest.mark.parametrize("custom_text", [False, True])
def test_the_text_tower__embeds_as_encode_text_does(tmp_path: Path, custom_text: bool) -> None:
    config = clip_config(custom_text=custom_text)
    tower, clip = load_text_tower(write_clip(tmp_path, config)), build_clip(config)
    tokens = open_clip.SimpleTokenizer(context_length=12)(TEXTS)
    with torch.no_grad():
        assert_close(tower(TEXTS), clip.encode_text(tokens, normalize=True))
        assert_close(tower.encode_text(tokens), clip.encode_text(tokens))
    assert tower.width == 24
    assert not any(weight.requires_grad for weight in tower.parameters())


def test_the_text_tower__of_another_form_than_the_simplest(tmp_path: Path) -> None:
    """As SigLIP's: no causal mask, the last token, a projection with bias, another GELU."""
    config = clip_config(custom_text=True)
    config["model_cfg"]["quick_gelu"] = False
    config["model_cfg"]["text_cfg"] |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    config["model_cfg"]["text_cfg"] |= {"act_kwargs": {"approximate": "tanh"}, "tokenizer_kwargs": {"clean": "canonicalize"}}
    tower, clip = load_text_tower(write_clip(tmp_path, config)), build_clip(config)
    tokens = open_clip.SimpleTokenizer(context_length=12, clean="canonicalize")(["A  sea-horse!"])
    assert_close(tower(["A  sea-horse!"]), clip.encode_text(tokens, normalize=True))


def test_the_text_tower__classifies_as_open_clip_does(tmp_path: Path) -> None:
    tower, clip = load_text_tower(write_clip(tmp_path)), build_clip(clip_config())
    tokenizer = open_clip.SimpleTokenizer(context_length=12)
    expected = open_clip.build_zero_shot_classifier(clip, tokenizer, ["ant", "sea horse"], open_clip.OPENAI_IMAGENET_TEMPLATES)
    found = tower.classifier(["ant", "sea horse"], named_templates("openai"))
    assert_close(found, expected.T)
    assert_close(F.normalize(found, dim=-1), found)


def test_the_text_tower__of_a_name_with_a_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCLIP's own name and weights; the architecture is a real one, its configuration made small."""
    name = write_clip(tmp_path)
    settings = {"hf_hub": "owner/name/", "quick_gelu": True}
    monkeypatch.setattr(names, "expect_hub", lambda repository: None)
    monkeypatch.setattr(names, "get_pretrained_cfg", lambda architecture, tag: settings)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda settings: str(tmp_path / "clip.safetensors"))
    small = clip_config()["model_cfg"] | {"quick_gelu": False}
    monkeypatch.setattr(open_clip, "get_model_config", lambda architecture: small)
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda architecture: open_clip.SimpleTokenizer(context_length=12))
    assert_close(load_text_tower("open_clip:ViT-S-32-alt/some_tag")(TEXTS), load_text_tower(name)(TEXTS))


def test_teachers_without_a_text_tower() -> None:
    for teacher in ("timm:vit_tiny_patch16_224", "hf:owner/name", "bundled", "a module passed in"):
        problem = f"The teacher '{teacher}' has no text tower that could be asked for words."
        with refused(TeacherError, problem, "open_clip:ARCH/TAG"):
            load_text_tower(teacher)


def test_a_file_with_other_weights(tmp_path: Path) -> None:
    name = write_clip(tmp_path)
    state: dict[str, Any] = {"visual.class_embedding": torch.ones(2, 2), "token_embedding.weight": torch.ones(2, 2)}
    save_file(state, tmp_path / "clip.safetensors")
    with pytest.raises(WeightsError, match=r"do not fit .*missing: .* other shape: token_embedding\.weight"):
        load_text_tower(name)


def test_a_part_that_only_a_hub_has(tmp_path: Path) -> None:
    name = write_clip(tmp_path)
    for part, options in (
        ("tokenizer", {"hf_tokenizer_name": "owner/words"}),
        ("text tower", {"hf_model_name": "owner/words", "hf_proj_type": "mlp"}),
    ):
        config = clip_config()
        config["model_cfg"]["text_cfg"] |= options
        (tmp_path / "clip.json").write_text(json.dumps(config))
        problem = f"The {part} of '{name}' comes from 'owner/words' and could not be fetched ("
        with refused(TeacherError, problem, "Check the network, or bring 'owner/words' into the hub's cache of this machine."):
            load_text_tower(name)


def test_without_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    for ask in (lambda: load_text_tower("open_clip:ViT-B-32/openai"), lambda: named_templates("simple")):
        with pytest.raises(MissingExtraError, match=r"Install it with: pip install 'sparseformers\[open-clip\]'"):
            ask()


def test_templates__are_open_clips_own() -> None:
    theirs = [template("cat") for template in open_clip.SIMPLE_IMAGENET_TEMPLATES]
    assert [template.replace("{}", "cat") for template in named_templates("simple")] == theirs
    assert len(adapter.TEMPLATES["openai"]) == 80
