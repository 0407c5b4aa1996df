"""Students of OpenCLIP's image towers: with both fronts they stand in the space of the projected image embedding."""

from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sparseformers.config import CortexConfig
from sparseformers.evaluation.rebuilt import LowResolutionTeacher
from sparseformers.inheritance import default_tokens, inherit
from sparseformers.inheritance.inheriting import FrontKind
from sparseformers.model import SparseFormer
from sparseformers.named import named_config
from sparseformers.teachers import open_clip as adapter
from sparseformers.train.objective import Objective, teacher_targets
from tests.teachers.identity import check_identity, check_same, images_for, randomise
from tests.teachers.test_open_clip import siglip, tiny


def large_14(*, layers: int = 6) -> open_clip.CLIP:
    """OpenAI's ViT-L/14 as OpenCLIP has it (pre-norm before the blocks, quick GELU, projection), narrower and lower."""
    config = open_clip.get_model_config("ViT-L-14-quickgelu")
    vision = {**config["vision_cfg"], "layers": layers, "width": 64, "head_width": 32, "image_size": 56}
    text = {**config["text_cfg"], "layers": 1, "width": 32, "heads": 2, "vocab_size": 32}
    return randomise(open_clip.CLIP(48, vision, text, quick_gelu=config["quick_gelu"]))  # type: ignore[return-value]


def class_token_siglip() -> torch.nn.Module:
    """A timm tower with a class token and OpenCLIP's own linear projection."""
    return siglip(proj="linear", trunk={"class_token": True, "global_pool": "token"})


TOWERS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "ViT-L/14 of OpenAI": (large_14, {"pooling": "token", "projection": 48}),
    "no pre-norm, layer scale": (lambda: tiny(no_ln_pre=True, ls_init_value=0.1), {"pooling": "token", "projection": 16}),
    "average pooling": (lambda: tiny(pool_type="avg", layers=3), {"pooling": "average", "projection": 16}),
    "SigLIP": (siglip, {"pooling": "attention", "projection": None}),
    "timm's, projected": (class_token_siglip, {"pooling": "token", "projection": 16}),
}
"""How to make each tower, and what is expected of the cortex that it calls for."""


def student_of(teacher: adapter.Teacher, front: FrontKind, **options: Any) -> SparseFormer:
    small = {"focusing_width": 64, "channels": 8, "points": 4} if front == "focusing" else {}
    return inherit(teacher, front=front, **small, **options).student.eval()


@pytest.mark.parametrize("tower", TOWERS)
@torch.no_grad()
def test_the_tower_and_its_student_with_the_grid_front(tower: str) -> None:
    make, expected = TOWERS[tower]
    teacher = adapter.from_module(make())
    anatomy: CortexConfig = teacher.anatomy
    assert {name: getattr(anatomy, name) for name in expected} == expected
    if tower == "ViT-L/14 of OpenAI":
        assert (teacher.patch_size, anatomy.block.activation) == (14, "quick_gelu")
        assert teacher.patch_embedding().pre_norm is not None
    check_identity(teacher)
    # A student with the grid front is the teacher at a low resolution.
    images = images_for(teacher)
    low = LowResolutionTeacher(teacher, 4)
    student = student_of(teacher, "grid", tokens=4)
    check_same(student(images).embedding, low(images).embedding, tolerance=1e-5)


@pytest.mark.parametrize("tower", TOWERS)
@torch.no_grad()
def test_the_cortex_of_a_bootstrapped_student_is_the_teachers_end(tower: str) -> None:
    """From the teacher's own tokens after what was truncated it goes on to the teacher's own embedding."""
    teacher = adapter.from_module(TOWERS[tower][0]())
    images = images_for(teacher)
    truncated = teacher.depth // 3
    student = student_of(teacher, "focusing", tokens=4, truncate=truncated)
    assert len(student.cortex.blocks) == teacher.depth - truncated
    tokens = teacher.block_inputs(images)[truncated]
    for block in student.cortex.blocks:
        tokens = block(tokens)
    pooled, _ = student.cortex.read(tokens)
    check_same(student.cortex.projection(pooled), teacher(images).embedding, tolerance=1e-5)
    # And its own tokens, random as they are before training, come out in the same space.
    assert student(images).embedding.shape == teacher(images).embedding.shape


@pytest.mark.parametrize("front", ["grid", "focusing"])
@torch.no_grad()
def test_the_objective_ignores_the_length_of_embeddings(front: FrontKind) -> None:
    """CLIP compares embeddings of length 1, so their lengths before that must not matter."""
    network = large_14()
    teacher = adapter.from_module(network)
    images = images_for(teacher)
    output = student_of(teacher, front, tokens=4)(images)
    targets = teacher_targets(teacher, images, None)
    encode = getattr(network, "encode_image", network)
    normalised = F.normalize(encode(teacher.normalise(images)), dim=-1)
    expected = 1 - (F.normalize(output.embedding, dim=-1) * normalised).sum(dim=-1).mean()
    assert_close(Objective()(output, targets), expected, rtol=0, atol=1e-5)
    longer = targets._replace(embedding=7 * targets.embedding)
    assert_close(Objective()(output._replace(embedding=output.embedding / 3), longer), expected, rtol=0, atol=1e-5)


def test_the_real_vit_l_14__calls_for_the_papers_sf_l_clip() -> None:
    """Without memory for its 304 million weights: what inheritance makes of it is the named size."""
    teacher = adapter.on_meta("ViT-L-14-quickgelu")
    named = named_config("sf_large_clip")
    anatomy = teacher.anatomy
    assert default_tokens(teacher, "focusing") == named.focusing.tokens == 63
    assert anatomy.block == named.cortex.block
    assert (anatomy.depth, anatomy.projection, anatomy.pooling) == (24, named.cortex.projection, named.cortex.pooling)
    assert teacher.preprocessing.mean == named.preprocessing.mean


def test_the_real_siglip__pools_by_attention() -> None:
    anatomy = adapter.on_meta("ViT-B-16-SigLIP").anatomy
    assert (anatomy.pooling, anatomy.attention_pool_heads, anatomy.prefix_tokens) == ("attention", 12, 0)
    assert anatomy.embedding_width == 768
