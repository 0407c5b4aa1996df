from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.config import BlockConfig
from sparseformers.evaluation import (
    measure_cost,
    multiply_adds,
    parameters,
    published_multiply_adds,
)
from sparseformers.model import SparseFormer
from sparseformers.model.block import TransformerBlock
from sparseformers.named import NAMED_CONFIGS, named_config


class Attention(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)


class Sampling(nn.Module):
    def forward(self, features: Tensor, grid: Tensor) -> Tensor:
        return F.layer_norm(F.grid_sample(features, grid, align_corners=False), (4,))


def test_linear_layers_by_hand() -> None:
    assert multiply_adds(nn.Linear(7, 5), torch.ones(2, 3, 7)) == 2 * 3 * 7 * 5
    assert multiply_adds(nn.Linear(7, 5, bias=False), torch.ones(7).view(1, 7)) == 7 * 5


def test_convolutions_by_hand() -> None:
    convolution = nn.Conv2d(3, 8, 7, stride=2, padding=3)
    assert multiply_adds(convolution, torch.ones(1, 3, 32, 20)) == (16 * 10) * 8 * (3 * 7 * 7)


def test_both_products_of_fused_attention_count() -> None:
    query, key, value = torch.ones(2, 3, 5, 8), torch.ones(2, 3, 9, 8), torch.ones(2, 3, 9, 8)
    assert multiply_adds(Attention(), query, key, value) == 2 * (2 * 3) * (5 * 9 * 8)


def test_a_transformer_block_by_hand() -> None:
    tokens, width = 10, 32
    block = TransformerBlock(BlockConfig(width=width, heads=4, feed_forward_width=64))
    linear = tokens * (width * 3 * width + width * width + 2 * width * 64)
    assert multiply_adds(block, torch.ones(1, tokens, width)) == linear + 2 * tokens * tokens * width


def test_sampling_and_normalisation_do_not_count() -> None:
    assert multiply_adds(Sampling(), torch.ones(1, 4, 8, 8), torch.zeros(1, 3, 4, 2)) == 0


def test_counting_grows_with_the_batch_and_leaves_the_network_alone() -> None:
    network = TransformerBlock(BlockConfig(width=32, heads=4, feed_forward_width=64)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    one, four = multiply_adds(network, torch.ones(1, 10, 32)), multiply_adds(network, torch.ones(4, 10, 32))
    assert four == 4 * one
    assert network.training
    assert all(parameter.requires_grad and parameter.device.type == "cpu" for parameter in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


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


def test_counting_leaves_what_is_shared_alone() -> None:
    network, x = Shared().eval(), torch.rand(2, 4)
    tensors = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    expected = network(x)
    assert multiply_adds(network, x) == 3 * 2 * 4 * 4
    after = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    assert [name for name, _ in after] == [name for name, _ in tensors]
    assert all(one is other for (_, one), (_, other) in zip(after, tensors, strict=True))
    torch.testing.assert_close(network(x), expected, rtol=0, atol=0)


def test_shared_parameters_are_counted_once() -> None:
    first = nn.Linear(4, 4)
    second = nn.Linear(4, 4)
    second.weight = first.weight
    assert parameters(nn.Sequential(first, second)) == 16 + 4 + 4


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


@pytest.mark.parametrize("name", NAMED_CONFIGS)
def test_the_named_sizes_have_the_published_cost(name: str) -> None:
    giga_multiply_adds, mega_parameters = PUBLISHED[name]
    with torch.device("meta"):
        network = SparseFormer(named_config(name))
    cost = measure_cost(network, (224, 224))
    assert cost.published_multiply_adds is not None
    assert cost.published_multiply_adds / 1e9 == pytest.approx(giga_multiply_adds, rel=0.01)
    assert cost.parameters / 1e6 == pytest.approx(mega_parameters, abs=0.05)
    assert cost.size == (224, 224)
    # All products are a little more, and those of v1's adaptive mixing more than a little.
    more = cost.multiply_adds / 1e9 / giga_multiply_adds - 1
    assert 0.03 < more < 0.07 if "v1" in name else 0 < more < 0.01


def test_the_published_count_leaves_products_of_activations_out() -> None:
    tokens, width = 10, 32
    block = TransformerBlock(BlockConfig(width=width, heads=4, feed_forward_width=64, qkv_bias=False))
    images = torch.ones(1, tokens, width)
    linear = tokens * (width * 3 * width + width * width + 2 * width * 64)
    assert published_multiply_adds(block, images) == linear
    assert published_multiply_adds(Attention(), *[torch.ones(2, 3, 5, 8)] * 3) == 0
    assert published_multiply_adds(nn.Conv2d(3, 8, 7, stride=2, padding=3), torch.ones(1, 3, 32, 20)) == 16 * 10 * 8 * 3 * 7 * 7


def test_the_stem_alone_grows_with_the_image() -> None:
    with torch.device("meta"):
        network = SparseFormer(named_config("sf_base_augreg"))
    small, large = measure_cost(network, (224, 224)), measure_cost(network, (448, 224))
    assert large.multiply_adds - small.multiply_adds == (112 * 112) * 64 * (3 * 7 * 7)
