"""State dicts of SparseFormers in timm, never taken for those of another network; heads taken off and put on."""

import dataclasses
import json

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from sparseformers.errors import ConfigError, WeightsError
from sparseformers.model import SparseFormer
from sparseformers.saving import CONFIGURATION
from sparseformers.settings import to_dict
from tests.integrations.kinds import every_kind, student_of
from tests.integrations.timm_small import images, network_of, released
from tests.refusals import refused


@every_kind
def test_its_weights_are_a_sparseformer_s_and_the_configuration_and_make_one_again(kind: str) -> None:
    student, network = student_of(kind), network_of(kind)
    state = network.state_dict()
    assert json.loads(bytes(state.pop(CONFIGURATION).tolist())) == json.loads(json.dumps(to_dict(student.config)))
    assert state.keys() == student.state_dict().keys()
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in state.items())
    fresh = network_of(kind, trained=False)
    result = fresh.load_state_dict(student.state_dict())
    assert result.missing_keys == result.unexpected_keys == []
    assert torch.equal(fresh(images()), network(images()))
    again = network.student()
    assert type(again) is SparseFormer
    assert again.config == network.config
    shown = torch.rand(2, 3, 40, 56)
    assert torch.equal(again(shown).embedding, student(shown).embedding)
    next(again.parameters()).data.zero_()
    assert next(network.parameters()).any()


def test_weights_bring_the_function_that_they_are_for() -> None:
    network, other, trained = network_of("augreg"), network_of("augreg"), released("augreg")
    trained.load_state_dict({name: value for name, value in network.state_dict().items() if name != CONFIGURATION})
    assert not torch.allclose(trained(images()), network(images()))
    before = dict(other.named_parameters())
    before["focusing.token"].requires_grad_(False)
    other.load_state_dict(trained.state_dict())
    assert other.config == trained.config
    assert torch.equal(other(images()), trained(images()))
    after = dict(other.named_parameters())
    assert all(after[name] is value for name, value in before.items())  # an optimiser may hold them
    assert [name for name, value in after.items() if not value.requires_grad] == ["focusing.token"]


def test_what_the_user_chose_stays() -> None:
    source, network = released("augreg"), network_of("augreg", drop_path_rate=0.4, drop_rate=0.1)
    network.train().reset_classifier(5, "avg")
    network.set_grad_checkpointing()
    network.load_state_dict(source.state_dict())
    assert network.config.focusing == source.config.focusing
    assert (network.global_pool, network.config.cortex.pooling) == ("avg", "average")
    assert network.cortex.blocks[2].drop.kept == 0.6
    assert network.training
    assert network.cortex.training
    assert network.grad_checkpointing


def test_preprocessing_comes_along() -> None:
    source, network = network_of("augreg"), network_of("augreg")
    preprocessing = dataclasses.replace(source.config.preprocessing, mean=(0.7, 0.7, 0.7))
    source.config = dataclasses.replace(source.config, preprocessing=preprocessing)
    network.pretrained_cfg = {"mean": (0.0, 0.0, 0.0), "url": "somewhere"}
    network.load_state_dict(source.state_dict())
    assert network.pretrained_cfg["mean"] == (0.7, 0.7, 0.7)
    assert network.pretrained_cfg["url"] == "somewhere"


def test_an_open_shape_is_filled_once() -> None:
    network = network_of("v1", open_shape=True, own_head=False)
    network.load_state_dict(network_of("uneven").state_dict())
    assert torch.equal(network(images()), network_of("uneven")(images()))
    assert network.num_classes == 0
    for kind in ("cells", "v1"):
        with pytest.raises(WeightsError, match="The weights of the checkpoint do not fit"):
            network.load_state_dict(network_of(kind).state_dict())


def test_an_open_shape_may_keep_its_head() -> None:
    network = network_of("augreg", open_shape=True)  # five classes
    problem = "The weights of the checkpoint do not fit (missing: cortex.classifier.bias, cortex.classifier.w"
    with refused(WeightsError, problem, "num_classes=0"):
        network.load_state_dict(network_of("cells").state_dict())
    loose = {name: value for name, value in network_of("cells").state_dict().items() if "classifier" not in name}
    network.load_state_dict(loose, strict=False)
    assert network(images()).shape == (2, 5)
    assert torch.equal(network.forward_features(images()), network_of("cells").forward_features(images()))


def test_weights_that_do_not_fit() -> None:
    another_run = "Make the network of the run that they come from: timm.create_model('sf_run', run=RUN)."
    released = "ask for pretrained=True, or convert the file by sparseformers convert"
    whole, open_shape = network_of("augreg").state_dict(), network_of("v1", open_shape=True, own_head=False)
    missing = {name: value for name, value in whole.items() if name != "cortex.norm.bias"}
    narrow = whole | {"focusing.token": torch.ones(1, 63)}
    for network, state, problem, remedy in (
        (network_of("augreg"), network_of("uneven").state_dict(), "do not fit (missing: ", another_run),
        (open_shape, student_of("uneven").state_dict(), "unexpected: ", another_run),  # which needs the configuration
        (network_of("augreg"), {"initial_roi.weight": torch.zeros(6, 4)}, "", released),
        (network_of("augreg"), missing, "(missing: cortex.norm.bias)", ""),
        (network_of("augreg"), whole | {"cortex.stray": torch.ones(1)}, "(unexpected: cortex.stray)", ""),
        (network_of("augreg"), narrow, "(other shape: focusing.token [1, 63] instead of [1, 64])", ""),
    ):
        with refused(WeightsError, problem, remedy):
            network.load_state_dict(state)
    for broken in (b"{", b"[]", b'{"focusing": {"kind": "grid"}, "cortexx": 3}'):
        with refused(WeightsError, "The configuration beside the weights cannot be used", "Save them again."):
            network_of("augreg").load_state_dict(whole | {CONFIGURATION: torch.tensor(list(broken), dtype=torch.uint8)})


def test_weights_with_another_head() -> None:
    for kind, classes in (("augreg", 5), ("clip", 24)):
        network = network_of(kind)
        network.reset_classifier(9)
        remedy = f"Make the network with num_classes={classes}, as the checkpoint has, and call reset_classifier afterwards."
        with refused(WeightsError, f"weight [{classes}, 32] instead of [9, 32]", remedy):
            network.load_state_dict(network_of(kind).state_dict())


def test_within_another_module() -> None:
    source, target = nn.Sequential(network_of("augreg")), nn.Sequential(network_of("augreg", trained=False))
    source[0].load_state_dict(released("augreg").state_dict())
    target.load_state_dict(source.state_dict())
    assert target[0].config == source[0].config
    assert torch.equal(target.eval()(images()), source.eval()(images()))
    with pytest.raises(WeightsError, match="those of a network of other sizes"):
        target.load_state_dict(nn.Sequential(network_of("uneven")).state_dict(), strict=False)


def test_an_average_over_training_goes_along() -> None:
    model = network_of("augreg").train()
    average = ModelEmaV3(model, decay=0.5)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1.0)
    average.update(model)
    for name, value in average.module.named_parameters():
        torch.testing.assert_close(value.detach(), before[name] + 0.5)
    assert torch.equal(average.module.state_dict()[CONFIGURATION], model.state_dict()[CONFIGURATION])


@every_kind
def test_features_and_head_make_up_forward_and_without_a_classifier_the_head_gives_what_would_enter_one(kind: str) -> None:
    network = network_of(kind)
    features = network.forward_features(images())
    tokens = network.config.focusing.tokens
    assert features.shape == (2, network.num_prefix_tokens + tokens, network.num_features)
    assert torch.equal(network.forward_head(features), network(images()))
    pooled = network.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, network.head_hidden_size)
    assert torch.equal(network.get_classifier()(pooled), network(images()))
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
    expected = output.embedding if kind == "clip" else output.logits
    assert torch.equal(expected, network(student.normalise(shown)))
    network.bfloat16().reset_classifier(7)
    assert {weight.dtype for weight in network.get_classifier().parameters()} == {torch.bfloat16}


def test_another_pooling() -> None:
    for kind, pool in (("augreg", "avg"), ("average", "token"), ("v1", "avg"), ("siglip", "avg"), ("cells", "avg")):
        network = network_of(kind)
        network.reset_classifier(0, pool)
        assert network.global_pool == pool
        features = network.forward_features(images())
        pooled = features[:, 0] if pool == "token" else features[:, network.num_prefix_tokens :].mean(dim=1)
        norm = network.cortex.norm if kind == "v1" else network.cortex.pooled_norm
        torch.testing.assert_close(network(images()), norm(pooled))
        assert not [name for name in network.state_dict() if name.startswith("cortex.pooling")]


def test_a_pooling_that_cannot_be_had() -> None:
    for kind, pool, message in (
        ("augreg", "max", "Tokens cannot be pooled by 'max'. Use token, avg, map, or '' for all tokens."),
        ("augreg", "map", "Pooling by 'map' needs a teacher that pools so. Use token, avg, or '' for all tokens."),
        ("v1", "token", "Pooling by 'token' needs a class token, but there are no prefix tokens."),
    ):
        with pytest.raises(ConfigError, match=message):
            network_of(kind).reset_classifier(0, pool)
