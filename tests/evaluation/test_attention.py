"""Attention that is read, against attention that is worked out by hand from the host's own modules."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparseformers.errors import ConfigError
from sparseformers.evaluation import TeacherAttention, token_influence
from sparseformers.evaluation.attention import AttendingTeacher, measure_map, rank_correlation, rollout
from sparseformers.inheritance import inherit
from sparseformers.model.selector import shares_on
from sparseformers.model.sparseformer import SparseFormer
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.teachers import huggingface as huggingface_adapter
from tests.evaluation.students import original
from tests.model.small import small_model
from tests.model.test_mixed_resolution import mixed_model
from tests.teachers import huggingface_models as huggingface
from tests.teachers import test_timm as timm
from tests.teachers.identity import images_for


@torch.no_grad()
def attention_of_timm(teacher: Teacher, images: Tensor) -> list[Tensor]:
    """The attention of timm's own blocks from the tokens that enter them, the mean over heads: B x T x T each."""
    found = []
    for block, tokens in zip(teacher.host_blocks, teacher.block_inputs(images), strict=False):
        attention: Any = block.attn
        batch, length, width = tokens.shape
        qkv = attention.qkv(block.norm1(tokens)).reshape(batch, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key = attention.q_norm(qkv[0]), attention.k_norm(qkv[1])
        scores = query @ key.transpose(-2, -1) * (width // attention.num_heads) ** -0.5
        found.append(scores.softmax(dim=-1).mean(dim=1))
    return found


def pooled_row(pooling: str, patches: int, prefix: int) -> Tensor:
    """How much of each token is pooled."""
    if pooling == "token":
        return torch.eye(prefix + patches)[0]
    return torch.cat([torch.zeros(prefix), torch.full((patches,), 1 / patches)])


def shares(row: Tensor, prefix: int, grid: tuple[int, int] = (4, 4)) -> Tensor:
    """Rows B x T without the prefix as maps of patches that sum to one."""
    patches = row[:, prefix:]
    return (patches / patches.sum(dim=1, keepdim=True)).unflatten(-1, grid)


TEACHERS: dict[str, tuple[dict[str, Any], str, int]] = {
    "class token": ({}, "token", 1),
    "registers": ({"reg_tokens": 3}, "token", 4),
    "query-key norm": ({"qk_norm": True, "depth": 3}, "token", 1),
    "average pooling": ({"class_token": False, "global_pool": "avg"}, "average", 0),
    "average pooling beside a class token": ({"global_pool": "avg"}, "average", 1),
}


@pytest.mark.parametrize("name", TEACHERS)
def test_the_maps_of_a_teacher_are_those_of_timms_own_blocks(name: str) -> None:
    options, pooling, prefix = TEACHERS[name]
    teacher = load_teacher(timm.tiny(**options))
    images = images_for(teacher, 5)
    blocks = attention_of_timm(teacher, images)
    row = pooled_row(pooling, 16, prefix)
    flow = torch.eye(16 + prefix)
    for attention in blocks:
        flow = 0.5 * (attention + torch.eye(16 + prefix)) @ flow

    maps = TeacherAttention(teacher)(images)
    torch.testing.assert_close(maps.last, shares(row @ blocks[-1], prefix), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(maps.rollout, shares(row @ flow, prefix), atol=1e-6, rtol=1e-4)
    assert maps.last.std() > 1e-3


@torch.no_grad()
def test_a_teacher_that_pools_by_attention_is_read_where_it_pools() -> None:
    network: Any = timm.tiny(**timm.VARIANTS["attention pooling"])
    teacher = load_teacher(network)
    images = images_for(teacher)
    pool: Any = network.attn_pool
    tokens = network.forward_features(teacher.normalise(images))
    query = pool.q(pool.latent)[0, 0].view(pool.num_heads, -1)  # heads x D/heads
    key = pool.kv(tokens)[..., :64].unflatten(-1, (pool.num_heads, -1))  # B x T x heads x D/heads
    pooled = (torch.einsum("hc,bthc->bht", query, key) / query.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1)

    maps = TeacherAttention(teacher)(images)
    torch.testing.assert_close(maps.last, shares(pooled, 0), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(AttendingTeacher(teacher)(images).attention_map, maps.last)
    flow = rollout(attention_of_timm(teacher, images))
    torch.testing.assert_close(maps.rollout, shares((pooled[:, None] @ flow)[:, 0], 0), atol=1e-6, rtol=1e-4)


def test_other_libraries_have_maps_too() -> None:
    for build in (huggingface.dinov2_with_registers, huggingface.clip_vision, huggingface.siglip_vision):
        teacher = huggingface_adapter.from_module(build(), image_size=(32, 32))
        side = 32 // teacher.patch_size
        for one in TeacherAttention(teacher)(images_for(teacher)):
            assert one.shape == (2, side, side)
            torch.testing.assert_close(one.sum(dim=(1, 2)), torch.ones(2))


def test_rows_and_columns_are_those_of_the_image() -> None:
    teacher = load_teacher(timm.tiny(img_size=(40, 56)))
    maps = TeacherAttention(teacher)(images_for(teacher))
    assert maps.last.shape == maps.rollout.shape == (2, 5, 7)
    expected = shares(attention_of_timm(teacher, images_for(teacher))[-1][:, 0], 1, (5, 7))
    torch.testing.assert_close(maps.last, expected, atol=1e-6, rtol=1e-4)


def test_images_of_another_size_are_resized_to_the_teachers_and_what_is_none_is_refused() -> None:
    images, read = torch.rand(2, 3, 64, 96), TeacherAttention(load_teacher(timm.tiny()))
    resized = nn.functional.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(read(images).rollout, read(resized).rollout)
    with pytest.raises(ValueError, match="images must be B x 3 x H x W"):
        read(torch.rand(3, 32, 32))


def test_rollout__goes_from_the_last_block_back_to_the_first() -> None:
    # In the first block token 1 takes from 2, in the second token 0 takes from 1.
    first = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 1]])
    second = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1]])
    flow = rollout([first[None], second[None]])[0]
    torch.testing.assert_close(flow[0], torch.tensor([0.5, 0.25, 0.25]))
    with pytest.raises(ValueError, match="at least one block"):
        rollout([])


def by_hand(student: SparseFormer, images: Tensor) -> list[Tensor]:
    """The attention of a cortex's blocks, from the softmax of queries and keys: B x T x T each."""
    cortex: Any = student.cortex
    front, found = student.focusing(student.normalise(images)), []
    tokens = cortex.prefix(front.tokens)
    for block, places in zip(cortex.blocks, cortex.places(front.final_rois), strict=True):
        tokens = places.told(tokens)
        query, key, _ = block.attn.qkv(block.norm1(tokens)).chunk(3, dim=-1)
        query, key = (part.unflatten(-1, (block.attn.heads, -1)).transpose(1, 2) for part in (query, key))
        found.append((query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1))
        tokens = block(tokens)
    return found


class TestTokenInfluence:
    @torch.no_grad()
    def test_is_what_the_pooled_tokens_attend_to_in_the_last_block(self) -> None:
        images = torch.rand(2, 3, 40, 48)
        # The last has leaves, and a prefix that is the front's own.
        students = [small_model(tokens=6, prefix_tokens=prefix) for prefix in (1, 3)]
        for student in (*students, small_model(tokens=6, prefix_tokens=2, pooling="average"), mixed_model()):
            prefix = student.config.cortex.prefix_tokens
            attention = by_hand(student, images)[-1][:, :, prefix:]
            row = attention[:, 0] if student.config.cortex.pooling == "token" else attention[:, prefix:].mean(dim=1)
            influence = token_influence(student, images)
            assert influence.shape == (2, student.config.focusing.tokens)
            torch.testing.assert_close(influence, row / row.sum(dim=1, keepdim=True))
            assert influence.std() > 1e-4

    @torch.no_grad()
    def test_of_attention_pooling_is_what_the_pooling_attends_to(self) -> None:
        images = torch.rand(2, 3, 40, 48)
        for depth in (0, 2):
            student = small_model(tokens=6, prefix_tokens=0, pooling="attention", depth=depth)
            pooling: Any = student.cortex.pooling
            expected = pooling.weights(student(images).tokens).mean(dim=1)
            torch.testing.assert_close(token_influence(student, images), expected)

    def test_of_v1_needs_no_class_token(self) -> None:
        influence = token_influence(original(load_teacher(timm.tiny())), torch.rand(2, 3, 32, 32))
        assert influence.shape == (2, 4)
        torch.testing.assert_close(influence.sum(dim=1), torch.ones(2))

    def test_of_an_inherited_student_that_is_its_teacher_is_the_teachers_attention(self) -> None:
        teacher = load_teacher(timm.tiny(reg_tokens=2, depth=3))
        student = inherit(teacher, front="grid", tokens=16).student
        images = images_for(teacher)
        maps = TeacherAttention(teacher)(images)
        torch.testing.assert_close(token_influence(student, images), maps.last.flatten(1), atol=1e-6, rtol=1e-4)

    def test_leaves_each_part_in_its_own_mode(self) -> None:
        student = small_model().train()
        student.cortex.eval()
        influence = token_influence(student, torch.rand(1, 3, 32, 32))
        assert student.training
        assert not student.cortex.training
        assert not influence.requires_grad

    def test_a_cortex_without_blocks_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"The student's cortex has no blocks.* Choose another"):
            token_influence(small_model(depth=0), torch.rand(1, 3, 32, 32))


def test_with_ties_it_is_the_linear_correlation_of_ranks_by_counting() -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        maps = torch.randint(0, 6, (2, 4, 7), generator=generator)
        flat = maps.flatten(1)
        smaller = (flat[:, None, :] < flat[:, :, None]).sum(dim=-1)
        equal = (flat[:, None, :] == flat[:, :, None]).sum(dim=-1)
        expected = torch.corrcoef(smaller + (equal + 1) / 2)[0, 1]
        assert rank_correlation(maps[0], maps[1]) == pytest.approx(expected.item(), abs=1e-6)


def test_only_the_order_matters_and_without_one_there_is_no_correlation() -> None:
    values = torch.randn(3, 5)
    assert rank_correlation(values, values.exp()) == pytest.approx(1)
    assert rank_correlation(values, -(values**3)) == pytest.approx(-1)
    for constant in (torch.zeros(4), torch.full((4,), math.nan)):
        assert math.isnan(rank_correlation(constant, torch.arange(4.0)))
        assert math.isnan(rank_correlation(torch.arange(4.0), constant))
    for first, second in ((4, (5,)), (4, (2, 2)), (0, (0,))):
        with pytest.raises(ValueError, match="two maps of one shape"):
            rank_correlation(torch.zeros(first), torch.zeros(second))


@pytest.mark.parametrize("name", TEACHERS)
def test_an_attending_teacher__gives_its_answer_and_the_mean_attention_of_its_last_third(name: str) -> None:
    options, _, prefix = TEACHERS[name]
    teacher = load_teacher(timm.tiny(**{"depth": 6, **options}))
    images = images_for(teacher, 5)
    answer = AttendingTeacher(teacher)(images)
    last_third = attention_of_timm(teacher, images)[-round(teacher.depth / 3) :]
    rows = torch.stack([block[:, 0] if prefix else block.mean(dim=1) for block in last_third])
    torch.testing.assert_close(answer.attention_map, shares(rows.mean(dim=0), prefix), atol=1e-6, rtol=1e-4)
    embedding, tokens = teacher.embedding_and_tokens(images)
    torch.testing.assert_close(answer.embedding, embedding, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(answer.tokens, tokens, atol=1e-5, rtol=1e-4)


def test_measure_map__of_the_teachers_own_map_and_of_another() -> None:
    theirs = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0)).flatten(1).softmax(1).unflatten(1, (8, 8))
    own = measure_map(shares_on(theirs, (4, 4)), theirs)
    assert own.divergence == pytest.approx(0, abs=1e-6)
    assert own.overlap == 1
    other = measure_map(shares_on(theirs.flip(-1), (4, 4)), theirs)
    assert other.divergence > 1e-3
    assert 0 <= other.overlap < 1
