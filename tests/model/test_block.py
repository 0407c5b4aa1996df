from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.config import BlockConfig
from sparseformers.model.block import ACTIVATIONS, Attention, FeedForward, TransformerBlock
from tests.model.small import scattered


def block_config(**options: Any) -> BlockConfig:
    return BlockConfig(**{"width": 32, "heads": 4, "feed_forward_width": 48, **options})


def test_activations_are_what_their_names_say() -> None:
    x = torch.linspace(-4, 4, 33)
    expected: dict[str, Tensor] = {
        "gelu": nn.GELU()(x),
        "gelu_tanh": nn.GELU(approximate="tanh")(x),
        "quick_gelu": x / (1 + (-1.702 * x).exp()),
        "relu": x.clamp(min=0),
        "silu": x / (1 + (-x).exp()),
    }
    assert ACTIVATIONS.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(ACTIVATIONS[name](x), values, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("query_key_norm", [False, True])
def test_attention_is_softmax_over_all_tokens_and_tells_its_weights(query_key_norm: bool) -> None:
    attention = Attention(block_config(query_key_norm=query_key_norm))
    scattered(attention, scale=0.2)
    x = torch.randn(2, 5, 32)
    query, key, value = (part.view(2, 5, 4, 8).transpose(1, 2) for part in attention.qkv(x).chunk(3, dim=-1))
    weights = (attention.q_norm(query) @ attention.k_norm(key).transpose(-1, -2) / 8**0.5).softmax(dim=-1)
    expected = attention.proj((weights @ value).transpose(1, 2).reshape(2, 5, 32))
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention.weights(x), weights, atol=1e-5, rtol=1e-5)
    assert weights.std() > 0.01


def test_attention_weights_are_float32_in_half_precision() -> None:
    attention = scattered(Attention(block_config()), scale=0.2)
    x = torch.randn(1, 5, 32)
    precise = attention.weights(x)
    rough = attention.to(torch.bfloat16).weights(x.to(torch.bfloat16))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, precise, atol=0.01, rtol=0.05)


def test_gated_feed_forward_activates_the_first_half() -> None:
    network = FeedForward(block_config(gated=True, activation="silu"))
    x = torch.randn(3, 32)
    gate, value = network.fc1(x).split(48, dim=-1)
    torch.testing.assert_close(network(x), network.fc2(F.silu(gate) * value))


def test_block_is_two_scaled_residual_branches_on_normalised_tokens() -> None:
    block = scattered(TransformerBlock(block_config(layer_scale=True, norm_eps=1e-5)), scale=0.1)
    x = torch.randn(2, 5, 32)
    middle = x + block.ls1.gamma * block.attn(block.norm1(x))
    torch.testing.assert_close(block(x), middle + block.ls2.gamma * block.mlp(block.norm2(middle)))
    assert {norm.eps for norm in block.modules() if isinstance(norm, nn.LayerNorm)} == {1e-5}


def test_biases_can_be_left_out() -> None:
    full = TransformerBlock(block_config()).state_dict().keys()
    for bias, absent in (
        ("qkv_bias", {"attn.qkv.bias"}),
        ("attention_bias", {"attn.proj.bias"}),
        ("feed_forward_bias", {"mlp.fc1.bias", "mlp.fc2.bias"}),
    ):
        assert full - TransformerBlock(block_config(**{bias: False})).state_dict().keys() == absent
