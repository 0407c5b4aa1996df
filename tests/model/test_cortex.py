import pytest
import torch
from torch import Tensor

from sparseformers.model.cortex import AttentionPooling
from tests.exporting.students import FRONTS, student_of
from tests.model.small import scattered, small_model
from tests.model.test_block import block_config


@pytest.mark.parametrize("prefix_tokens", [0, 1, 5])
def test_prefix_tokens_come_first(prefix_tokens: int) -> None:
    model = small_model(pooling="average", prefix_tokens=prefix_tokens, depth=0, final_norm=False)
    images = torch.rand(2, 3, 32, 32)
    output = model(images)
    assert output.tokens.shape == (2, prefix_tokens + 6, 32)
    front = model.run_front(images)
    torch.testing.assert_close(output.tokens[:, prefix_tokens:], front.tokens)
    torch.testing.assert_close(output.embedding, front.tokens.mean(dim=1))
    for index in range(prefix_tokens):
        torch.testing.assert_close(output.tokens[0, index], model.cortex.prefix.tokens[index])


def test_average_pooling_may_take_in_the_prefix_tokens() -> None:
    output = small_model(pooling="average", pool_prefix_tokens=True)(torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(output.embedding, output.tokens.mean(dim=1))


def test_token_pooling_takes_the_first_token_through_norm_and_projection() -> None:
    model = small_model(projection=12, projection_bias=True, pooled_norm=True, classes=5)
    output = model(torch.rand(2, 3, 32, 32))
    assert output.embedding.shape == (2, 12)
    torch.testing.assert_close(output.embedding, model.cortex.projection(model.cortex.pooled_norm(output.tokens[:, 0])))
    torch.testing.assert_close(output.logits, model.cortex.classifier(output.embedding))


def test_attention_pooling_leaves_out_the_prefix_tokens() -> None:
    pooling = scattered(AttentionPooling(block_config(), heads=2, skip=3, hidden=48), scale=0.1)
    tokens = torch.randn(2, 9, 32)
    changed = torch.cat([torch.randn(2, 3, 32), tokens[:, 3:]], dim=1)
    torch.testing.assert_close(pooling(tokens), pooling(changed), atol=0, rtol=0)
    assert pooling(tokens).shape == (2, 32)
    moved = torch.cat([tokens[:, :3], tokens[:, 3:].flip(1)], dim=1)
    torch.testing.assert_close(pooling(tokens), pooling(moved), atol=1e-5, rtol=1e-5)


def test_attention_pooling_weights_are_those_that_forward_uses() -> None:
    pooling = scattered(AttentionPooling(block_config(), heads=2, skip=3, hidden=48), scale=0.2)
    tokens = torch.randn(2, 9, 32)
    weights = pooling.weights(tokens)
    assert weights.shape == (2, 2, 6)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2))
    _, _, value = pooling.query_key_value(tokens)  # B x heads x 6 x D/heads
    pooled = pooling.proj((weights.unsqueeze(-1) * value).sum(dim=-2).flatten(-2))
    torch.testing.assert_close(pooling(tokens), pooled + pooling.mlp(pooling.norm(pooled)), atol=1e-5, rtol=1e-5)


def test_v1_pools_before_the_norm_and_norms_each_token_too() -> None:
    model, images = student_of(FRONTS["original"]), torch.rand(2, 3, 40, 40)
    raw: list[Tensor] = []
    model.cortex.blocks[-1].register_forward_hook(lambda _, __, tokens: raw.append(tokens))
    output = model(images)
    torch.testing.assert_close(output.embedding, model.cortex.norm(raw[0].mean(dim=1)))
    torch.testing.assert_close(output.tokens, model.cortex.norm(raw[0]))
