"""A student folded for its embedding gives that embedding, with less work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sparseformers.evaluation import multiply_adds
from sparseformers.inference import fold, fold_embedding, pack_weights
from sparseformers.inference.folding import ClassTokenBlock
from sparseformers.model import SparseFormer
from sparseformers.model.block import TransformerBlock
from tests.exporting.students import FRONTS, student_of
from tests.model.small import scattered, small_config
from tests.model.test_block import block_config
from tests.model.test_forward_guard import recorded

BLOCKS: tuple[dict[str, Any], ...] = (
    {},
    {"layer_scale": True},
    {"query_key_norm": True},
    {"gated": True, "activation": "silu"},
    {"qkv_bias": False, "attention_bias": False, "feed_forward_bias": False},
    {"norm_eps": 1e-5, "activation": "quick_gelu"},
)
"""Forms of an inherited block."""
CORTICES: tuple[dict[str, Any], ...] = (
    {},
    {"prefix_tokens": 5},
    {"pool_first": True},
    {"pooled_norm": True, "final_norm": False},
    {"projection": 24, "projection_bias": True, "classes": 3},
    {"depth": 1},
    {"depth": 0},
    {"pooling": "average"},
    {"pooling": "average", "pool_prefix_tokens": True},
    {"pooling": "attention", "prefix_tokens": 0},
    {"pooling": "attention", "pool_prefix_tokens": True},
)
"""Forms of a cortex."""


def require_same(
    student: SparseFormer, network: nn.Module, *, tokens: int | None = None, size: tuple[int, int] = (48, 50)
) -> None:
    images = torch.rand(3, 3, *size)
    with torch.no_grad():
        expected, given = student(images, tokens).embedding, network(images)
    assert given.dtype == torch.float32
    assert given.shape == expected.shape
    assert (given - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("options", BLOCKS)
@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_class_token_block__gives_the_first_row_of_the_block(options: dict[str, Any], tokens: int) -> None:
    torch.manual_seed(0)
    block = scattered(TransformerBlock(block_config(**options)), scale=0.2).eval()
    x = torch.randn(3, tokens, 32)
    with torch.no_grad():
        expected, given = block(x)[:, :1], ClassTokenBlock(block)(x)
    assert given.shape == (3, 1, 32)
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("size", [(48, 48), (33, 70)])
def test_gives_the_students_embedding(front: str, size: tuple[int, int]) -> None:
    student = student_of(FRONTS[front], mean=(0.4, 0.5, 0.1), std=(0.2, 0.3, 0.6))
    require_same(student, fold_embedding(student), size=size)


@pytest.mark.parametrize("options", BLOCKS)
def test_gives_it_with_all_forms_of_blocks(options: dict[str, Any]) -> None:
    student = student_of(small_config(block=options))
    require_same(student, fold_embedding(student))
    require_same(student, pack_weights(fold_embedding(student)))


@pytest.mark.parametrize("options", CORTICES)
def test_gives_it_with_all_forms_of_cortices(options: dict[str, Any]) -> None:
    student = student_of(small_config(**options))
    network = fold_embedding(student)
    require_same(student, network)
    alone = sum(isinstance(module, ClassTokenBlock) for module in network.modules())
    assert alone == (options.get("pooling", "token") == "token" and options.get("depth", 2) > 0)


def test_gives_it_at_another_number_of_tokens() -> None:
    student = student_of(FRONTS["grid"])
    require_same(student, fold_embedding(student, tokens=9), tokens=9)
    with pytest.raises(ValueError, match="4 tokens and no other number, not 5"):
        fold_embedding(student_of(FRONTS["focusing"]), tokens=5)


def test_spares_what_only_other_outputs_need() -> None:
    student = student_of(small_config(tokens=6, prefix_tokens=3, classes=5))
    images = torch.empty(1, 3, 48, 48)
    spared = multiply_adds(fold(student), images) - multiply_adds(fold_embedding(student), images)
    tokens, width, hidden = 9, 32, 48
    by_layers = (tokens - 1) * (2 * width**2 + 2 * width * hidden)  # queries and the projection, and the feed-forward network
    by_attention = 2 * (tokens - 1) * tokens * width
    assert spared == by_layers + by_attention + 5 * width


@pytest.mark.parametrize("front", FRONTS)
def test_needs_no_more_kernels_than_all_tokens(front: str) -> None:
    student, images = student_of(FRONTS[front]), torch.rand(2, 3, 64, 48)
    # One product more, as queries are made apart from keys and values, and a copy of the token that they are made of.
    assert recorded(fold_embedding(student), images).kernels <= recorded(fold(student), images).kernels + 2


def test_refuses_what_is_no_image() -> None:
    with pytest.raises(ValueError, match="at least 32 pixels a side"):
        fold_embedding(student_of(FRONTS["grid"]))(torch.rand(1, 3, 16, 48))
