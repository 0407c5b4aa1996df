"""Taking heads off and putting them on, as timm does it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseformers.errors import ConfigError
from tests.integrations.kinds import every_kind
from tests.integrations.timm_small import images, network_of


@every_kind
def test_features_and_head_make_up_forward(kind: str) -> None:
    network = network_of(kind)
    features = network.forward_features(images())
    tokens = network.config.focusing.tokens
    assert features.shape == (2, network.num_prefix_tokens + tokens, network.num_features)
    assert torch.equal(network.forward_head(features), network(images()))
    pooled = network.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, network.head_hidden_size)
    assert torch.equal(network.get_classifier()(pooled), network(images()))


@every_kind
def test_without_a_classifier_it_gives_what_would_enter_one(kind: str) -> None:
    network = network_of(kind)
    pooled = network.forward_head(network.forward_features(images()), pre_logits=True)
    head = next((name for name, module in network.named_modules() if module is network.get_classifier()), None)
    network.reset_classifier(0)
    assert network.num_classes == 0
    assert isinstance(network.get_classifier(), nn.Identity)
    assert head is None or f"{head}.weight" not in network.state_dict()
    assert torch.equal(network(images()), pooled)
    network.reset_classifier(0, "")
    unpooled = network(images())
    assert unpooled.ndim == 3
    assert unpooled.shape[:2] == network.forward_features(images()).shape[:2]


@every_kind
def test_a_new_classifier(kind: str) -> None:
    network = network_of(kind)
    features = network.forward_features(images())
    network.reset_classifier(7)
    assert network.num_classes == 7
    assert network(images()).shape == (2, 7)
    assert torch.equal(network.forward_features(images()), features)
    # The configuration goes along: what comes of it is a SparseFormer again.
    student = network.student()
    shown = torch.rand(2, 3, 40, 56)
    output = student(shown)
    said = output.embedding if kind == "clip" else output.logits
    assert torch.equal(said, network(student.normalise(shown)))


def test_a_new_classifier_is_as_precise_as_the_network() -> None:
    network = network_of("augreg").bfloat16()
    network.reset_classifier(7)
    head = network.get_classifier()
    assert isinstance(head, nn.Linear)
    assert head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "pool"), [("augreg", "avg"), ("average", "token"), ("v1", "avg"), ("siglip", "avg"), ("cells", "avg")]
)
def test_another_pooling(kind: str, pool: str) -> None:
    network = network_of(kind)
    network.reset_classifier(0, pool)
    assert network.global_pool == pool
    features = network.forward_features(images())
    pooled = features[:, 0] if pool == "token" else features[:, network.num_prefix_tokens :].mean(dim=1)
    norm = network.cortex.norm if kind == "v1" else network.cortex.pooled_norm
    torch.testing.assert_close(network(images()), norm(pooled))
    assert not [name for name in network.state_dict() if name.startswith("cortex.pooling")]


@pytest.mark.parametrize(
    ("kind", "pool", "message"),
    [
        ("augreg", "max", "Tokens cannot be pooled by 'max'. Use token, avg, map, or '' for all tokens."),
        ("augreg", "map", "Pooling by 'map' needs a teacher that pools so. Use token, avg, or '' for all tokens."),
        ("v1", "token", "Pooling by 'token' needs a class token, but there are no prefix tokens."),
    ],
)
def test_a_pooling_that_cannot_be_had(kind: str, pool: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        network_of(kind).reset_classifier(0, pool)
    assert message in str(caught.value)
