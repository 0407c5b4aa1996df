from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sparseformers.config import BlockConfig
from sparseformers.evaluation import measure_training_cost, multiply_adds, training_multiply_adds
from sparseformers.inheritance import freeze_inherited, split_depth
from sparseformers.model import SparseFormer
from sparseformers.model.block import TransformerBlock
from sparseformers.named import named_config
from tests.model.small import small_model

TOKENS, WIDTH = 10, 32
LINEAR = TOKENS * (WIDTH * 3 * WIDTH + WIDTH * WIDTH + 2 * WIDTH * 64)
"""Multiply-adds of a block's linear layers."""
PRODUCTS = 2 * TOKENS * TOKENS * WIDTH
"""Of the two products inside its attention."""


def block(*, learns: bool) -> TransformerBlock:
    return TransformerBlock(BlockConfig(width=WIDTH, heads=4, feed_forward_width=64)).requires_grad_(learns)


def two_layers(first: bool, second: bool) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5).requires_grad_(first), nn.Linear(5, 7).requires_grad_(second))


@pytest.mark.parametrize(
    ("first", "second", "backward"),
    [
        (True, True, 2 * (15 + 35 + 35)),  # no gradient for the input of the first one
        (True, False, 2 * (15 + 35)),  # a frozen end lets the gradient through
        (False, True, 2 * 35),  # a frozen beginning needs none
        (False, False, 0),
    ],
)
def test_two_layers_by_hand(first: bool, second: bool, backward: int) -> None:
    assert training_multiply_adds(two_layers(first, second), torch.ones(2, 3)) == (2 * (15 + 35), backward)


def test_a_convolution_that_comes_first_needs_its_weights_gradient_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1))
    first, second = 16 * 16 * 3 * 8 * 9, 16 * 16 * 8 * 4 * 9
    assert training_multiply_adds(network, torch.ones(1, 3, 16, 16)) == (first + second, first + 2 * second)


def test_blocks_by_hand() -> None:
    image = torch.ones(1, TOKENS, WIDTH)
    learning, frozen = block(learns=True), block(learns=False)
    qkv = TOKENS * WIDTH * 3 * WIDTH
    forward, backward = training_multiply_adds(nn.Sequential(learning, block(learns=True)), image)
    assert forward == 2 * (LINEAR + PRODUCTS)
    assert backward == 4 * (LINEAR + PRODUCTS)  # the first norm learns, so that even the first layer's input needs a gradient
    _, backward = training_multiply_adds(nn.Sequential(learning, frozen), image)
    assert backward == 2 * (LINEAR + PRODUCTS) + LINEAR + 2 * PRODUCTS
    _, backward = training_multiply_adds(nn.Sequential(frozen, learning), image)
    assert backward == 2 * (LINEAR + PRODUCTS)
    learning.norm1.requires_grad_(False)
    _, backward = training_multiply_adds(learning, image)
    assert backward == 2 * (LINEAR + PRODUCTS) - qkv


@pytest.mark.parametrize(("tune", "freeze"), [(4, 4), (0, 8), (8, 0)])
def test_a_paper_sized_student_by_its_blocks(tune: int, freeze: int) -> None:
    with torch.device("meta"):
        student = SparseFormer(named_config("sf_base_augreg"))
        freeze_inherited(student, split_depth(12, truncate=4, tune=tune, freeze=freeze))
    image = torch.empty(1, 3, 224, 224, device="meta")
    of_block = multiply_adds(student.cortex.blocks[0], torch.empty(1, 49, 768))
    of_products = 2 * 49 * 49 * 768
    of_front = multiply_adds(student.focusing, image)
    forward, backward = training_multiply_adds(student, image, result=lambda output: output.embedding)
    assert forward == multiply_adds(student, image)
    expected = 2 * of_front + tune * 2 * of_block + freeze * (of_block + of_products)
    assert backward == pytest.approx(expected, rel=0.05)  # the stem's convolution needs no gradient of the pixels


def test_agrees_with_counting_a_real_training_step() -> None:
    student = small_model()
    student.cortex.blocks[-1].requires_grad_(False)
    images = torch.rand(2, 3, 48, 64)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        student(images).embedding.square().mean().backward()
    forward, backward = training_multiply_adds(student, images, result=lambda output: output.embedding)
    assert forward + backward == pytest.approx(counter.get_total_flops() / 2, rel=0.01)


def test_leaves_the_network_alone() -> None:
    network = two_layers(True, False).eval()
    before = [parameter.clone() for parameter in network.parameters()]
    with torch.inference_mode():
        training_multiply_adds(network, torch.ones(2, 3))
    assert not network.training
    assert [parameter.requires_grad for parameter in network.parameters()] == [True, True, False, False]
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(now, then) for now, then in zip(network.parameters(), before, strict=True))


class Scaled(nn.Module):
    """As many linear layers as it is told tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, images: Tensor, tokens: int | None = None) -> Answer:
        pixels = images.mean(dim=(2, 3))
        for _ in range(tokens or 1):
            pixels = self.layer(pixels)
        return Answer(pixels)


class Answer:
    def __init__(self, embedding: Tensor) -> None:
        self.embedding = embedding


def test_several_numbers_of_tokens_count_by_their_mean_and_a_cached_teacher_not_at_all() -> None:
    cost = measure_training_cost(Scaled(), None, (8, 8), tokens=(1, 3))
    assert (cost.teacher_forward, cost.student_forward) == (0, 9 * 2)
    assert cost.student_backward == (9 + 5 * 9) / 2
    assert cost.total == 18 + 27
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    assert measure_training_cost(Scaled(), teacher, (8, 8)).teacher_forward == 384
