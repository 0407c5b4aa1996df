"""A student in the place of an OpenCLIP model's image tower: everything that OpenCLIP does with it goes on working."""

import dataclasses

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg
from torch import Tensor
from torch.testing import assert_close

import sparseformers
from sparseformers.config import PreprocessingConfig
from sparseformers.errors import ConfigError
from sparseformers.inheritance import inherit
from sparseformers.inheritance.inheriting import FrontKind
from sparseformers.integrations.public import OpenClipVisual, preprocess_cfg
from sparseformers.model import SparseFormer
from sparseformers.teachers import Teacher
from sparseformers.teachers import open_clip as adapter
from tests.model.small import scattered
from tests.refusals import refused
from tests.tiny_clip import PREPROCESSING, SIDE, build_clip, clip_config

NAMES = ["sea horse", "yin yang", "lamp"]


def clip_and_teacher() -> tuple[open_clip.CLIP, Teacher]:
    clip = build_clip(clip_config())
    clip.visual.preprocess_cfg = PREPROCESSING
    return clip, adapter.from_module(clip)


def student_of(teacher: Teacher, front: FrontKind, *, trained: bool = True) -> SparseFormer:
    options = {"focusing_width": 64, "channels": 8, "points": 4} if front == "focusing" else {}
    student = inherit(teacher, front=front, tokens=5, **options).student  # type: ignore[arg-type]
    return scattered(student).eval() if trained else student.eval()  # type: ignore[return-value]


def images(count: int = 3, side: int = SIDE) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def normalised(pictures: Tensor) -> Tensor:
    return (pictures - torch.tensor(PREPROCESSING["mean"]).view(3, 1, 1)) / torch.tensor(PREPROCESSING["std"]).view(3, 1, 1)


@pytest.fixture(params=["grid", "focusing"])
def guest(request: pytest.FixtureRequest) -> tuple[open_clip.CLIP, SparseFormer]:
    """A CLIP with a student as its image tower, and that student."""
    clip, teacher = clip_and_teacher()
    student = student_of(teacher, request.param)
    clip.visual = sparseformers.as_open_clip_visual(student)
    return clip, student


def test_encode_image__is_the_students_embedding(guest: tuple[open_clip.CLIP, SparseFormer]) -> None:
    clip, student = guest
    expected = student(images()).embedding
    assert_close(clip.encode_image(normalised(images())), expected, rtol=0, atol=1e-4)
    assert_close(clip.encode_image(normalised(images()), normalize=True), F.normalize(expected, dim=-1), rtol=0, atol=1e-4)
    assert clip.encode_image(normalised(images(side=96))).shape == (3, 24)


def test_text_similarity__logits_and_the_zero_shot_classifier_of_open_clip(guest: tuple[open_clip.CLIP, SparseFormer]) -> None:
    clip, student = guest
    tokenizer = open_clip.SimpleTokenizer(context_length=clip.context_length)
    tokens = tokenizer(NAMES)
    ours = F.normalize(student(images()).embedding, dim=-1)
    words = clip.encode_text(tokens, normalize=True)
    by_image, by_text = clip.get_logits(normalised(images()), tokens)
    assert_close(by_image, clip.logit_scale.exp() * ours @ words.T, rtol=0, atol=1e-3)
    assert_close(by_text, by_image.T)
    image_features, text_features, scale = clip(normalised(images()), tokens)
    assert_close(scale * image_features @ text_features.T, by_image)
    classes = open_clip.build_zero_shot_classifier(clip, tokenizer, NAMES, open_clip.SIMPLE_IMAGENET_TEMPLATES)
    logits = clip.encode_image(normalised(images()), normalize=True) @ classes
    assert_close(logits, ours @ classes, rtol=0, atol=1e-4)


def test_a_student_with_a_token_for_each_patch_is_the_tower_that_it_replaces() -> None:
    clip, teacher = clip_and_teacher()
    before = clip.encode_image(normalised(images()), normalize=True)
    clip.visual = sparseformers.as_open_clip_visual(inherit(teacher, tokens=16).student.eval())
    assert_close(clip.encode_image(normalised(images()), normalize=True), before, rtol=0, atol=1e-5)


def test_what_open_clip_reads_off_an_image_tower(guest: tuple[open_clip.CLIP, SparseFormer]) -> None:
    clip, _ = guest
    visual = clip.visual
    assert (visual.image_size, visual.output_dim, visual.output_tokens) == ((SIDE, SIDE), 24, False)
    assert (list(visual.image_mean), list(visual.image_std)) == (PREPROCESSING["mean"], PREPROCESSING["std"])
    described = open_clip.get_model_preprocess_cfg(clip)
    assert described.keys() == dataclasses.asdict(PreprocessCfg()).keys()
    assert PreprocessCfg(**described).size == (SIDE, SIDE)
    assert described["resize_mode"] == "shortest"
    undecayed = clip.no_weight_decay()
    assert undecayed & {"visual.student.focusing.prefix.tokens", "visual.student.cortex.prefix.tokens"}
    assert "visual.student.cortex.blocks.0.attn.qkv.weight" not in undecayed
    described = preprocess_cfg(PreprocessingConfig(size=(32, 48), resize="squash", interpolation="bilinear"))
    assert (described["size"], described["resize_mode"], described["interpolation"]) == ((32, 48), "squash", "bilinear")


def test_output_tokens__gives_the_latent_tokens_too(guest: tuple[open_clip.CLIP, SparseFormer]) -> None:
    _, student = guest
    embedding, tokens = sparseformers.as_open_clip_visual(student, output_tokens=True)(normalised(images()))
    output = student(images())
    assert_close(embedding, output.embedding, rtol=0, atol=1e-4)
    assert_close(tokens, output.tokens[:, 1:], rtol=0, atol=1e-3)
    assert tokens.shape == (3, 5, 64)


def learning(clip: open_clip.CLIP) -> set[str]:
    return {name for name, weight in clip.visual.student.named_parameters() if weight.requires_grad}


def test_lock_image_tower__freezes_all_but_the_last_groups(guest: tuple[open_clip.CLIP, SparseFormer]) -> None:
    clip, student = guest
    clip.lock_image_tower()
    assert learning(clip) == set()
    assert clip.logit_scale.requires_grad
    clip.lock_image_tower(unlocked_groups=1, freeze_bn_stats=True)
    assert learning(clip) == {"cortex.projection.weight"}
    clip.lock_image_tower(unlocked_groups=2)
    last = f"cortex.blocks.{len(student.cortex.blocks) - 1}."
    others = {name for name in learning(clip) if not name.startswith(last)}
    assert others == {"cortex.projection.weight", "cortex.norm.weight", "cortex.norm.bias"}
    assert f"{last}attn.qkv.weight" in learning(clip)
    clip.lock_image_tower(unlocked_groups=99)
    assert learning(clip) == {name for name, _ in student.named_parameters()}


def gradients(clip: open_clip.CLIP) -> tuple[Tensor, dict[str, Tensor], int]:
    """The loss, all gradients, and the bytes that were kept for the backward pass."""
    kept = 0

    def count(value: Tensor) -> Tensor:
        nonlocal kept
        kept += value.numel() * value.element_size()
        return value

    clip.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        loss = clip.encode_image(normalised(images()), normalize=True).square().cumsum(dim=1).mean()
    loss.backward()
    found = {name: weight.grad.clone() for name, weight in clip.visual.named_parameters() if weight.grad is not None}
    return loss, found, kept


def test_set_grad_checkpointing__the_same_gradients_with_less_kept(guest: tuple[open_clip.CLIP, SparseFormer]) -> None:
    clip, _ = guest
    clip.visual.requires_grad_(True)
    clip.train()
    loss, plain, kept = gradients(clip)
    clip.set_grad_checkpointing(True)
    again, checkpointed, kept_then = gradients(clip)
    assert_close(again, loss)
    assert checkpointed.keys() == plain.keys()
    for name, gradient in plain.items():
        assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-6)
    assert kept_then < 0.5 * kept
    clip.set_grad_checkpointing(False)
    assert gradients(clip)[2] == kept


def test_half_precision_images__get_half_precision_embeddings() -> None:
    clip, teacher = clip_and_teacher()
    clip.half()
    clip.visual = sparseformers.as_open_clip_visual(student_of(teacher, "grid"))
    embedding = clip.encode_image(normalised(images()).half())
    assert embedding.dtype == torch.float16
    expected = clip.encode_image(normalised(images())).detach()
    assert_close(embedding.float(), expected, rtol=0, atol=0.02 * float(expected.abs().max()))


def test_weights_that_were_cast_are_refused_with_what_to_do() -> None:
    visual = OpenClipVisual(student_of(clip_and_teacher()[1], "grid")).half()
    problem = "A SparseFormer keeps its weights in float32, but those of this CLIP's image tower were cast to torch.float16."
    with refused(ConfigError, problem, "Cast the CLIP before its image tower is replaced"):
        visual(normalised(images()).half())
