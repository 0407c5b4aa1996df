"""Token merging changes nothing where there is nothing to merge, or nothing but equal tokens; and costs what it says."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.baselines import TokenMergingTeacher, merged_for_budget, merging_multiply_adds
from benchmarks.baselines.schedule import constant_schedule, early_schedule
from sparseformers.errors import ConfigError
from sparseformers.evaluation import embed_one, measure_cost
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.teachers import huggingface as huggingface_adapter
from sparseformers.teachers import open_clip as open_clip_adapter
from tests.evaluation.networks import batches_of
from tests.refusals import refused
from tests.teachers import huggingface_models as huggingface
from tests.teachers import test_open_clip as open_clip
from tests.teachers import test_timm as timm
from tests.teachers.identity import check_same, images_for

POOLINGS = [
    "class token",
    "average pooling",
    "average pooling with the class token",
    "attention pooling",
    "attention pooling with the class token",
]
COSTS = [*POOLINGS, "registers", "no class token", "no classifier", "SwiGLU, packed", "another feed-forward width"]


def tiny_teacher(variant: str = "class token", **options: Any) -> Teacher:
    return load_teacher(timm.tiny(**{**timm.VARIANTS[variant], **options}))


@torch.no_grad()
def test_without_merging_it_is_the_teacher_of_any_library() -> None:
    teachers = {variant: tiny_teacher(variant) for variant in timm.VARIANTS if variant != "post-norm"}
    teachers["CLIP"] = open_clip_adapter.from_module(open_clip.tiny(quick_gelu=True))
    teachers["SigLIP"] = huggingface_adapter.from_module(huggingface.siglip_vision(), image_size=(32, 32))
    for teacher in teachers.values():
        images = images_for(teacher)
        expected, actual = teacher(images), TokenMergingTeacher(teacher, 0)(images)
        check_same(actual.embedding, expected.embedding, tolerance=1e-5)
        assert (actual.logits is None) == (expected.logits is None)
        if expected.logits is not None:
            check_same(actual.logits, expected.logits, tolerance=1e-5)


def test_tokens_that_attention_needs_the_places_of_are_not_merged() -> None:
    with refused(ConfigError, "cannot be merged: its attention needs their places, or is not plain", "bundled"):
        TokenMergingTeacher(tiny_teacher("post-norm"), 1)


def placeless(variant: str) -> Teacher:
    """A teacher to which a patch looks the same wherever it is."""
    network = timm.tiny(**timm.VARIANTS[variant])
    torch.nn.init.zeros_(network.pos_embed)
    return load_teacher(network)


def two_halves() -> Tensor:
    """Images of two colours, one above the other: two kinds of patches, eight of each."""
    top, bottom = torch.rand(2, 2, 3, 1, 1, generator=torch.Generator().manual_seed(2))
    return torch.cat([top.expand(-1, -1, 16, 32), bottom.expand(-1, -1, 16, 32)], dim=2)


@torch.no_grad()
def test_merging_equal_tokens_changes_nothing() -> None:
    """A token of size s counts like s equal ones in attention, in averages and in attention pooling."""
    for variant in (*POOLINGS, "registers", "query-key norm", "pre-norm", "layer scale"):
        teacher = placeless(variant)
        images = two_halves()
        expected = teacher(images).embedding
        for merged in ((8, 0), (0, 8), (8, 4), (7, 3), 6):
            check_same(TokenMergingTeacher(teacher, merged)(images).embedding, expected, tolerance=1e-5)


@torch.no_grad()
def test_without_proportional_attention_it_does_where_sizes_differ() -> None:
    teacher, images = placeless("class token"), two_halves()
    expected = teacher(images).embedding
    plain = TokenMergingTeacher(teacher, (7, 0), proportional=False)(images).embedding
    assert float((plain - expected).abs().max()) > 1e-3 * float(expected.abs().max())


@torch.no_grad()
def test_merging_unequal_tokens_changes_the_embedding_the_more_are_merged() -> None:
    teacher = tiny_teacher(depth=4)
    images = images_for(teacher, 16)
    expected = teacher(images).embedding
    errors = [float((TokenMergingTeacher(teacher, r)(images).embedding - expected).norm()) for r in (0, 1, 4, 8)]
    assert errors == sorted(errors)
    assert errors[1] > 100 * errors[0]


@torch.no_grad()
def test_each_image_is_merged_for_itself() -> None:
    network = TokenMergingTeacher(tiny_teacher("registers"), 5)
    images = torch.rand(3, 3, 32, 32)
    together = network(images).embedding
    for image, expected in zip(images, together, strict=True):
        assert_close(network(image[None]).embedding[0], expected)


def test_it_is_evaluated_like_a_student_in_any_precision() -> None:
    network = TokenMergingTeacher(tiny_teacher(), 4)
    batches = batches_of(torch.rand(5, 3, 32, 32), size=2)
    full = embed_one(network, batches, device="cpu", autocast=None)
    low = embed_one(network, batches, device="cpu", autocast=torch.bfloat16)
    assert full.shape == low.shape == (5, 64)
    assert torch.cosine_similarity(full, low).min() > 0.98


def test_the_cost_in_closed_form_is_the_measured_one() -> None:
    cases = [(tiny_teacher(variant), (8, 4)) for variant in COSTS] + [(tiny_teacher(), merged) for merged in ((0, 0), (5, 0))]
    cases.append((open_clip_adapter.from_module(open_clip.tiny()), (3, 3)))
    for teacher, merged in cases:
        measured = measure_cost(TokenMergingTeacher(teacher, merged), (32, 32)).multiply_adds
        assert merging_multiply_adds(teacher, merged) == measured


def test_schedules_by_hand() -> None:
    assert constant_schedule(16, 5, 6) == (6, 5, 2, 1, 1)
    assert constant_schedule(16, 3, 2) == (2, 2, 2)
    assert constant_schedule(1, 2, 3) == (0, 0)
    assert early_schedule(16, 4, 5) == (8, 3, 0, 0)
    assert early_schedule(9, 4, 1) == (4, 2, 1, 1)
    assert early_schedule(16, 2, 20) == (0, 0)


@pytest.mark.parametrize("schedule", ["constant", "early"])
def test_a_budget_is_met_as_nearly_as_possible(schedule: Any) -> None:
    teacher = tiny_teacher(depth=6)
    if schedule == "constant":
        others = [constant_schedule(16, 6, count) for count in range(9)]
    else:
        others = [early_schedule(16, 6, left) for left in range(1, 17)]
    costs = {merged: merging_multiply_adds(teacher, merged) for merged in others}
    for share in (0.4, 0.6, 0.9):
        budget = share * merging_multiply_adds(teacher, (0,) * 6)
        merged = merged_for_budget(teacher, budget, schedule=schedule)
        assert costs[merged] <= 1.03 * budget
        for cost in costs.values():
            assert cost > 1.03 * budget or abs(cost - budget) >= abs(costs[merged] - budget)
    assert TokenMergingTeacher(teacher, merged).merged == merged


def test_a_budget_for_the_whole_teacher_merges_nothing() -> None:
    assert merged_for_budget(tiny_teacher(), 1e12) == (0, 0)


def test_a_budget_that_cannot_be_met() -> None:
    teacher = tiny_teacher()
    least = merging_multiply_adds(teacher, (8, 4)) / 1e9
    with pytest.raises(ConfigError) as error:
        merged_for_budget(teacher, 1e5)
    assert error.value.problem == "No merging of tokens brings this teacher down to 0.0001 G multiply-adds."
    assert error.value.remedy == f"Allow {least:.3g} G or more."


def test_impossible_schedules_are_refused() -> None:
    for merged, problem, remedy in (
        ((1, 2, 3), "There are 3 numbers of tokens to merge for 2 blocks.", "Give one number for each block."),
        ((8, 5), "Block 1 cannot merge 5 of the 8 tokens that reach it.", "Use a number from 0 to 4, half of them."),
        ((-1, 0), "Block 0 cannot merge -1 of the 16 tokens that reach it.", "Use a number from 0 to 8, half of them."),
        (-2, "-2 tokens cannot be merged in a block.", "Use 0 to merge none."),
    ):
        with pytest.raises(ConfigError) as error:
            TokenMergingTeacher(tiny_teacher(), merged)
        assert (error.value.problem, error.value.remedy) == (problem, remedy)
    with pytest.raises(ConfigError, match=r"Merging cannot leave 0 tokens\. Leave 1 or more\."):
        early_schedule(16, 2, 0)
