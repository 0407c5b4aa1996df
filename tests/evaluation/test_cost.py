"""Parameters and multiply-adds, by hand and beside the papers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.config import BlockConfig
from sparseformers.evaluation import (
    measure_cost,
    measure_training_cost,
    multiply_adds,
    parameters,
    published_multiply_adds,
    training_multiply_adds,
)
from sparseformers.model import SparseFormer
from sparseformers.model.block import TransformerBlock
from sparseformers.named import NAMED_CONFIGS, named_config
from tests.evaluation.networks import Output
from tests.model.small import small_model

TOKENS, WIDTH = 10, 32
LINEAR = TOKENS * (WIDTH * 3 * WIDTH + WIDTH * WIDTH + 2 * WIDTH * 64)  # multiply-adds of a block's linear layers
PRODUCTS = 2 * TOKENS * TOKENS * WIDTH  # of the two products inside its attention


def block(*, learns: bool = True, **options: bool) -> TransformerBlock:
    return TransformerBlock(BlockConfig(width=WIDTH, heads=4, feed_forward_width=64, **options)).requires_grad_(learns)


class Attention(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)


class Sampling(nn.Module):
    def forward(self, features: Tensor, grid: Tensor) -> Tensor:
        return F.layer_norm(F.grid_sample(features, grid, align_corners=False), (4,))


def test_layers_by_hand__products_of_activations_are_not_in_the_published_count() -> None:
    assert multiply_adds(nn.Linear(7, 5), torch.ones(2, 3, 7)) == 2 * 3 * 7 * 5
    assert multiply_adds(nn.Linear(7, 5, bias=False), torch.ones(7).view(1, 7)) == 7 * 5
    convolution = nn.Conv2d(3, 8, 7, stride=2, padding=3)
    for count in (multiply_adds, published_multiply_adds):
        assert count(convolution, torch.ones(1, 3, 32, 20)) == (16 * 10) * 8 * (3 * 7 * 7)
    query, key, value = torch.ones(2, 3, 5, 8), torch.ones(2, 3, 9, 8), torch.ones(2, 3, 9, 8)
    assert multiply_adds(Attention(), query, key, value) == 2 * (2 * 3) * (5 * 9 * 8)  # both products of fused attention
    assert published_multiply_adds(Attention(), query, key, value) == 0
    # Sampling and normalisation do not count.
    assert multiply_adds(Sampling(), torch.ones(1, 4, 8, 8), torch.zeros(1, 3, 4, 2)) == 0


def test_a_transformer_block_by_hand() -> None:
    for images in (1, 4):
        tokens = torch.ones(images, TOKENS, WIDTH)
        assert multiply_adds(block(), tokens) == images * (LINEAR + PRODUCTS)
        assert published_multiply_adds(block(qkv_bias=False), tokens) == images * LINEAR


class Shared(nn.Module):
    """A module under two names, and a weight and a buffer of two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.same = self.one
        self.other = nn.Linear(4, 4)
        self.other.weight = self.one[0].weight
        self.register_buffer("mean", self.one[1].running_mean)

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.same(self.one(x))) + self.mean


def test_counting_takes_what_is_shared_once_and_leaves_all_alone() -> None:
    network, x = Shared().train(), torch.rand(2, 4)
    network.one.eval()  # whose statistics would change
    assert parameters(network) == 16 + 4 + 8 + 4
    tensors = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    expected = network(x)
    assert multiply_adds(network, x) == 3 * 2 * 4 * 4
    assert [network.training, network.one.training] == [True, False]
    assert all(parameter.requires_grad for parameter in network.parameters())
    after = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    assert [name for name, _ in after] == [name for name, _ in tensors]
    assert all(one is other for (_, one), (_, other) in zip(after, tensors, strict=True))
    torch.testing.assert_close(network(x), expected, rtol=0, atol=0)


PUBLISHED = {
    "sf_base_augreg": (3.75, 64.2),
    "sf_large_augreg": (11.27, 212.4),
    "sf_base_clip": (3.75, 63.8),
    "sf_large_clip": (14.69, 212.2),
    "sf_v1_tiny": (2.05, 31.5),
    "sf_v1_small": (3.80, 47.6),
    "sf_v1_base": (7.70, 81.1),
}
"""Thousands of millions of multiply-adds at 224 x 224, and millions of parameters, of the authors' code."""


def test_the_named_sizes_have_the_published_cost() -> None:
    for name, (giga_multiply_adds, mega_parameters) in PUBLISHED.items():
        with torch.device("meta"):
            network = SparseFormer(named_config(name))
        assert parameters(network) / 1e6 == pytest.approx(mega_parameters, abs=0.05)
        if name in ("sf_base_augreg", "sf_large_clip", "sf_v1_tiny", "sf_v1_base"):
            cost = measure_cost(network, (224, 224))
            assert cost.published_multiply_adds / 1e9 == pytest.approx(giga_multiply_adds, rel=0.01)
            assert (cost.parameters, cost.size) == (parameters(network), (224, 224))
            # All products are a little more, and those of v1's adaptive mixing more than a little.
            more = cost.multiply_adds / 1e9 / giga_multiply_adds - 1
            assert 0.03 < more < 0.07 if "v1" in name else 0 < more < 0.01
    assert PUBLISHED.keys() == NAMED_CONFIGS.keys()


def test_the_stem_alone_grows_with_the_image() -> None:
    small, large = (measure_cost(small_model(), size).multiply_adds for size in ((32, 32), (64, 32)))
    assert large - small == (16 * 16) * 8 * (3 * 7 * 7)


def two_layers(first: bool, second: bool) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5).requires_grad_(first), nn.Linear(5, 7).requires_grad_(second))


def test_two_layers_by_hand() -> None:
    for first, second, backward in (
        (True, True, 2 * (15 + 35 + 35)),  # no gradient for the input of the first one
        (True, False, 2 * (15 + 35)),  # a frozen end lets the gradient through
        (False, True, 2 * 35),  # a frozen beginning needs none
        (False, False, 0),
    ):
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

    def forward(self, images: Tensor, tokens: int | None = None) -> Output:
        pixels = images.mean(dim=(2, 3))
        for _ in range(tokens or 1):
            pixels = self.layer(pixels)
        return Output(pixels, None)


def test_several_numbers_of_tokens_count_by_their_mean_and_a_cached_teacher_not_at_all() -> None:
    cost = measure_training_cost(Scaled(), None, (8, 8), tokens=(1, 3))
    assert (cost.teacher_forward, cost.student_forward) == (0, 9 * 2)
    assert cost.student_backward == (9 + 5 * 9) / 2
    assert cost.total == 18 + 27
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    assert measure_training_cost(Scaled(), teacher, (8, 8)).teacher_forward == 384
