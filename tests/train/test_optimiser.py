import pytest
import torch

from sparseformers.inheritance import Shares, freeze_inherited
from sparseformers.train.objective import cosine_distance
from sparseformers.train.optimiser import build_optimiser, rate_factor, set_rates
from tests.model.small import small_model


def test_build_optimiser__tuned_blocks_learn_at_a_tenth_and_frozen_ones_not_at_all() -> None:
    student = small_model(depth=3)
    freeze_inherited(student, Shares(truncate=0, tune=1, freeze=2))
    optimiser = build_optimiser(student, lr=2e-3, lr_ratios={"tuned": 0.1}, weight_decay=0.05)
    set_rates(optimiser, 0.5)
    rate_of = {id(parameter): group["lr"] for group in optimiser.param_groups for parameter in group["params"]}
    for name, parameter in student.named_parameters():
        if name.startswith("cortex.blocks.0."):
            assert rate_of[id(parameter)] == pytest.approx(1e-4)
        elif name.startswith("focusing.") or name == "cortex.prefix.tokens":
            assert rate_of[id(parameter)] == pytest.approx(1e-3)
        else:
            assert id(parameter) not in rate_of
    student = small_model()
    freeze_inherited(student, Shares(truncate=0, tune=0, freeze=2))
    optimiser = build_optimiser(student, lr=1e-3, lr_ratios={"tuned": 0.1}, weight_decay=0.05)
    assert {group["name"] for group in optimiser.param_groups} == {"new"}


def test_build_optimiser__matrices_decay_and_rois_biases_and_embeddings_do_not() -> None:
    student = small_model()
    freeze_inherited(student, Shares(truncate=0, tune=2, freeze=0))
    optimiser = build_optimiser(student, lr=1e-3, lr_ratios={"tuned": 0.1}, weight_decay=0.05)
    decay_of = {id(parameter): group["weight_decay"] for group in optimiser.param_groups for parameter in group["params"]}
    named = dict(student.named_parameters())
    for name in ("focusing.initial_rois", "focusing.token", "focusing.stages", "cortex.prefix.tokens", "focusing.widen.bias"):
        assert decay_of[id(named[name])] == 0, name
    for name in ("focusing.widen.weight", "focusing.stem.convolution.weight", "cortex.blocks.0.attn.qkv.weight"):
        assert decay_of[id(named[name])] == 0.05, name


def test_rate_factor__rises_then_falls_to_zero() -> None:
    assert rate_factor(0.0, 0.1) == 0
    assert rate_factor(0.05, 0.1) == pytest.approx(0.5)
    assert rate_factor(0.1, 0.1) == 1
    assert rate_factor(0.55, 0.1) == pytest.approx(0.5)
    assert rate_factor(1.0, 0.1) == pytest.approx(0, abs=1e-12)
    assert rate_factor(7.0, 0.1) == pytest.approx(0, abs=1e-12)
    assert rate_factor(0.0, 0.0) == 1


def test_cosine_distance__is_zero_for_equal_directions_and_two_for_opposite_ones() -> None:
    embedding = torch.randn(4, 8)
    assert cosine_distance(3 * embedding, embedding).item() == pytest.approx(0, abs=1e-6)
    assert cosine_distance(-embedding, embedding).item() == pytest.approx(2, abs=1e-6)
    assert cosine_distance(torch.randn(4, 8).bfloat16(), embedding.bfloat16()).dtype == torch.float32
