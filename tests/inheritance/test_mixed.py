"""Inheritance with a mixed-resolution front: a new student is the one with a grid front, until its map says where to look."""

import pytest
import torch

from sparseformers.config import MixedResolutionConfig
from sparseformers.evaluation.cost import measure_cost
from sparseformers.inheritance import inherit, parameter_groups
from sparseformers.model import SparseFormer
from sparseformers.teachers import load_teacher
from tests.inheritance.test_focusing import vit
from tests.inheritance.test_grid import images
from tests.teachers.test_timm import tiny


def mixed_config(student: SparseFormer) -> MixedResolutionConfig:
    assert isinstance(student.config.focusing, MixedResolutionConfig)
    return student.config.focusing


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}, {"pre_norm": True}])
def test_a_new_student__is_the_one_with_a_grid_front(options: dict[str, object]) -> None:
    teacher = vit(**options)
    for tokens in (16, 64):
        grid, mixed = (inherit(teacher, front=front, tokens=tokens).student.eval() for front in ("grid", "mixed"))
        with torch.inference_mode():
            ours, theirs = mixed(images()), grid(images())
        assert torch.equal(ours.rois[:, -1], theirs.rois[:, -1])
        assert torch.equal(ours.embedding, theirs.embedding)
        assert torch.equal(ours.tokens, theirs.tokens)


def test_numbers_of_tokens__are_the_nearest_that_splits_give_and_it_is_said() -> None:
    for asked, given in ((9, 10), (16, 16), (17, 16), (48, 49), (1, 4), (6, 7), (500, 64)):
        inheritance = inherit(vit(), front="mixed", tokens=asked)
        assert mixed_config(inheritance.student).tokens == given
        told = [line for line in inheritance.report.lines() if "tokens" in line]
        assert told == ([] if asked == given else [f"The student has {given} tokens: splits of four give no {asked}."])


def test_levels_and_start__follow_from_the_size_of_the_teacher() -> None:
    for size, tokens, start, levels in (
        ((64, 64), None, (2, 2), 2),
        ((64, 128), None, (2, 4), 2),
        ((96, 64), None, (3, 2), 2),
        ((128, 128), 64, (4, 4), 2),  # as 224 pixels and patches of 14
        ((160, 160), 64, (5, 5), 2),  # as 280 pixels: not on a power of two, but on the patches
        ((256, 256), 64, (4, 4), 3),
        ((256, 256), 9, (2, 2), 4),
        ((104, 104), 49, (3, 3), 2),  # 13 patches a side, which no halving meets
    ):
        student = inherit(load_teacher(tiny(img_size=size, patch_size=8)), front="mixed", tokens=tokens).student
        config = mixed_config(student)
        assert (config.start, config.levels) == (start, levels)
        assert student(torch.rand(1, 3, *size)).rois.shape[2] == config.tokens


@pytest.mark.parametrize("tokens", [16, 64])
def test_the_selector__costs_at_most_a_twentieth(tokens: int) -> None:
    teacher = load_teacher(tiny(img_size=224, patch_size=16, embed_dim=192, depth=12, num_heads=3))
    grid, mixed = (measure_cost(inherit(teacher, front=front, tokens=tokens).student, (224, 224)) for front in ("grid", "mixed"))
    assert 1 < mixed.multiply_adds / grid.multiply_adds <= 1.05


def test_parameter_groups__selector_and_sizes_are_new_and_what_the_map_sees_is_frozen() -> None:
    student = inherit(vit(), front="mixed", tokens=64).student
    groups = {group: {name for name, _ in members} for group, members in parameter_groups(student).items()}
    selector = {name for name, _ in student.named_parameters() if name.startswith("focusing.selector.")}
    assert groups["new"] == {"cortex.sizes.tokens", *selector}
    assert student.cortex.sizes is not None
    assert student.cortex.sizes.tokens.requires_grad
    assert {"focusing.embedding.weight", "focusing.embedding.positions"} <= groups["frozen"]
    assert {"focusing.prefix.tokens", "cortex.blocks.0.attn.qkv.weight"} <= groups["tuned"]
