"""The checks that timm makes of its models, made of ours; and that the network gives what its SparseFormer gives."""

import math
from dataclasses import replace

import pytest
import timm.models
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor

from sparseformers.config import ReadOutConfig
from sparseformers.errors import ConfigError
from sparseformers.integrations.timm_network import build_network
from sparseformers.model import SparseFormer
from sparseformers.model.splatting import splat
from tests.integrations.kinds import every_kind, student_of
from tests.integrations.timm_small import images, network_of
from tests.model.small import scattered
from tests.refusals import refused


@every_kind
def test_it_gives_for_normalised_images_what_the_student_gives_for_images(kind: str) -> None:
    student, network = student_of(kind), network_of(kind)
    for shown in (torch.rand(3, 3, 32, 32), torch.rand(1, 3, 48, 33)):
        output = student(shown)
        ours = network(student.normalise(shown))
        assert torch.equal(ours, output.embedding if output.logits is None else output.logits)
        assert ours.shape[1] == (network.num_classes or network.head_hidden_size)
        if not student.config.cortex.pool_first:
            assert torch.equal(network.forward_features(student.normalise(shown)), output.tokens)


@every_kind
def test_backward_reaches_every_parameter(kind: str) -> None:
    network = network_of(kind, trained=False)
    network.reset_classifier(42)
    output = network.train()(images())
    output.mean().backward()
    assert output.shape == (2, 42)
    untaught = [name for name, value in network.named_parameters() if value.grad is None]
    assert all(name.startswith("focusing.selector.") for name in untaught)  # which the teacher's map alone teaches
    assert bool(untaught) == (kind == "mixed")
    assert all(value.grad.isfinite().all() for value in network.parameters() if value.grad is not None)


@every_kind
def test_intermediates_are_the_features_on_the_way(kind: str) -> None:
    network = network_of(kind)
    for norm in (False, True):
        features, outputs = network.forward_intermediates(images(), norm=norm)
        assert torch.equal(features, network.forward_features(images()))
        assert len(outputs) == 3 == len(network.feature_info)
        last = outputs[-1] if norm else network.norm(outputs[-1])
        torch.testing.assert_close(last, features[:, network.num_prefix_tokens :])
        shape = (2, network.config.focusing.tokens, network.embed_dim)
        assert all(output.shape == shape for output in outputs)
        assert not torch.allclose(outputs[0], outputs[1])
    features, every = network.forward_intermediates(images())
    for indices, blocks in (([0, 2], [0, 2]), (2, [1, 2]), ([-2], [1]), (1, [2])):
        _, some = network.forward_intermediates(images(), indices=indices)
        assert [torch.equal(output, every[block]) for output, block in zip(some, blocks, strict=True)] == [True] * len(blocks)
    early, some = network.forward_intermediates(images(), indices=[0], stop_early=True)
    assert torch.equal(some[0], every[0])
    assert not torch.allclose(early, features)
    alone = network.forward_intermediates(images(), indices=[1], intermediates_only=True)
    assert isinstance(alone, list)
    assert torch.equal(alone[0], every[1])
    for bad in ([3], [-4], 0, 4, []):
        problem = f"There are 3 blocks to give intermediates of, so that {bad} is out of range."
        with refused(ConfigError, problem, "Ask for the last 1 to 3, or for indices from 0 to 2."):
            network.forward_intermediates(images(), indices=bad)


def test_the_map_of_a_read_out_is_the_intermediate_of_its_layer_on_the_teachers_grid() -> None:
    config = replace(student_of("cells").config, read_out=ReadOutConfig(hidden=32, grid=(6, 4), patch_size=4))
    for layer, norm in ((-1, True), (-2, False)):
        config = replace(config, read_out=replace(config.read_out, layer=layer))
        reading = scattered(SparseFormer(config)).eval()
        network = build_network(reading)
        shown = torch.rand(2, 3, 32, 32)
        wanted = reading.dense(shown)
        index = len(network.cortex.blocks) + layer
        asked = {"indices": [index], "output_fmt": "NCHW", "norm": norm, "intermediates_only": True}
        (given,) = network.forward_intermediates(reading.normalise(shown), **asked, stop_early=True)
        torch.testing.assert_close(given, wanted)
        (plain,) = network.forward_intermediates(reading.normalise(shown), **asked | {"norm": not norm})
        assert plain.shape[-2:] != given.shape[-2:]
        again = build_network(reading)
        again.load_state_dict(network.state_dict())
        torch.testing.assert_close(again.student().dense(shown), wanted)
        network.prune_intermediate_layers([0])
        assert network.read_out is None
        assert network.student().config.read_out is None


@every_kind
def test_intermediates_with_prefix_tokens_and_as_a_dictionary(kind: str) -> None:
    network = network_of(kind)
    features, pairs = network.forward_intermediates(images(), return_prefix_tokens=True, norm=True)
    named = network.forward_intermediates(images(), return_prefix_tokens=True, norm=True, output_dict=True)
    assert torch.equal(named["image_features"], features)
    if network.num_prefix_tokens:
        latent, prefix = pairs[-1]
        assert torch.equal(torch.cat([prefix, latent], dim=1), features)
        assert torch.equal(named["image_intermediates_prefix"][-1], prefix)
        assert torch.equal(named["image_intermediates"][-1], latent)
    else:
        assert torch.equal(pairs[-1], features)
        assert "image_intermediates_prefix" not in named
    alone = network.forward_intermediates(images(), intermediates_only=True, output_dict=True)
    assert set(alone) == {"image_intermediates"}


def test_tokens_as_a_map__those_of_cells_as_they_are_and_others_spread() -> None:
    network = network_of("cells")  # 2 rows of 3
    _, rows = network.forward_intermediates(images(), indices=1)
    _, maps = network.forward_intermediates(images(), indices=1, output_fmt="NCHW")
    assert maps[0].shape == (2, 32, 2, 3)
    assert torch.equal(maps[0][:, :, 1, 2], rows[0][:, 5])
    assert torch.equal(maps[0][:, :, 0, 1], rows[0][:, 1])
    for kind in ("augreg", "v1", "uneven", "mixed"):
        network = network_of(kind)
        last, maps = network.forward_intermediates(images(), indices=1, norm=True, output_fmt="NCHW")
        rois = network.focusing(images()).final_rois
        assert torch.equal(maps[0], splat(last[:, network.num_prefix_tokens :], rois, maps[0].shape[-2:]))
        assert math.prod(maps[0].shape[-2:]) >= network.config.focusing.tokens
        with pytest.raises(ConfigError, match="cannot be given as NHWC: only NLC and NCHW are known"):
            network_of(kind).forward_intermediates(images(), output_fmt="NHWC")


@every_kind
@pytest.mark.parametrize("prune_norm", [False, True])
def test_pruning_leaves_what_intermediates_need(kind: str, prune_norm: bool) -> None:
    network = network_of(kind)
    expected = network.forward_intermediates(images(), indices=[0, 1], intermediates_only=True)
    before = sum(value.numel() for value in network.parameters())
    assert network.prune_intermediate_layers([0, -2], prune_norm=prune_norm) == [0, 1]
    assert len(network.cortex.blocks) == 2 == len(network.feature_info)
    assert network.num_classes == 0
    assert sum(value.numel() for value in network.parameters()) < before
    outputs = network.forward_intermediates(images(), indices=[0, 1], intermediates_only=True)
    assert all(torch.equal(output, other) for output, other in zip(outputs, expected, strict=True))
    assert ("cortex.norm.weight" in network.state_dict()) == (not prune_norm and kind != "average")

    if kind == "augreg":  # the head may stay
        network = network_of(kind)
        network.prune_intermediate_layers(3, prune_head=False)
        assert network(images()).shape == (2, 5)


@every_kind
def test_gradient_checkpointing_changes_nothing(kind: str) -> None:
    plain, checkpointing = (network_of(kind, drop_path_rate=0.3).train() for _ in range(2))
    checkpointing.set_grad_checkpointing()
    outputs = []
    for network in (plain, checkpointing):
        torch.manual_seed(3)
        output = network(images())
        output.square().mean().backward()
        outputs.append(output.detach())
    assert torch.equal(*outputs)
    for ours, theirs in zip(plain.parameters(), checkpointing.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(*(network.eval().forward_intermediates(images())[1] for network in (plain, checkpointing)))


def test_gradient_checkpointing_remembers_less() -> None:
    network = network_of("cells").train()

    def remembered() -> int:
        sizes: list[int] = []

        def note(value: Tensor) -> Tensor:
            sizes.append(value.numel())
            return value

        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            network(images())
        return sum(sizes)

    plain = remembered()
    network.set_grad_checkpointing()
    assert remembered() < plain / 2
    network.set_grad_checkpointing(False)
    assert remembered() == plain


def test_dropout_and_stochastic_depth_are_timm_s() -> None:
    network = network_of("augreg", drop_rate=0.5, drop_path_rate=0.2)
    assert network.head_drop.p == network.drop_rate == 0.5
    assert [getattr(block.drop, "kept", 1.0) for block in network.cortex.blocks] == pytest.approx([1.0, 0.9, 0.8])
    assert torch.equal(network(images()), network_of("augreg")(images()))
    training = network.train()
    assert not torch.equal(training(images()), training(images()))


@every_kind
def test_embeddings_and_rois_do_not_decay(kind: str) -> None:
    network = network_of(kind)
    undecayed = network.no_weight_decay()
    parameters = dict(network.named_parameters())
    assert undecayed <= parameters.keys()
    expected = {
        "augreg": {"focusing.token", "focusing.initial_rois", "focusing.stages", "cortex.prefix.tokens"},
        "v1": {"focusing.token", "focusing.initial_rois"},
        "cells": {"focusing.embedding.positions", "focusing.prefix.tokens"},
    }
    assert expected.get(kind, undecayed) == undecayed
    optimiser = create_optimizer_v2(network, opt="adamw", weight_decay=0.1)
    without = {id(value) for group in optimiser.param_groups if group["weight_decay"] == 0 for value in group["params"]}
    for name, value in parameters.items():
        assert (id(value) in without) == (value.ndim <= 1 or name in undecayed)


@every_kind
def test_rates_may_fall_from_layer_to_layer(kind: str) -> None:
    network = network_of(kind)
    layers = timm.models.group_parameters(network, network.group_matcher(), reverse=True)
    assert layers.keys() == dict(network.named_parameters()).keys()
    for name, layer in layers.items():
        part, kind_of_part, number = f"{name}.".split(".")[:3]
        if kind_of_part == "blocks" and number.isdecimal():
            assert layer == 1 + int(number)
        elif part == "focusing" or kind_of_part == "prefix":
            assert layer == 0
        else:  # the norm goes with the last block, the head and what pools come after it
            assert layer == 3 + (kind_of_part != "norm")
    coarse = timm.models.group_parameters(network, network.group_matcher(coarse=True), reverse=True)
    assert len({coarse[name] for name in coarse if name.startswith("cortex.blocks.")}) == 1
    rates = [group["lr_scale"] for group in create_optimizer_v2(network, opt="adamw", layer_decay=0.5).param_groups]
    assert min(rates) == 0.5 ** max(layers.values())
    assert max(rates) == 1


@every_kind
def test_what_timm_asks_of_a_vision_transformer(kind: str) -> None:
    network = network_of(kind)
    prefix = network.config.cortex.prefix_tokens
    assert network.embed_dim == network.num_features == 32
    assert network.in_chans == 3
    assert network.num_prefix_tokens == prefix
    assert (network.has_class_token, network.num_reg_tokens) == (prefix > 0, max(0, prefix - 1))
    assert network.global_pool == {"siglip": "map", "average": "avg", "v1": "avg"}.get(kind, "token")
    info = timm.models.FeatureInfo(network.feature_info, 3)
    assert info.channels() == [32] * 3
    assert info.module_name() == [f"cortex.blocks.{index}" for index in range(3)]
    assert set(info.module_name()) <= dict(network.named_modules()).keys()
    assert info.reduction() == [round(math.sqrt(48 * 56 / network.config.focusing.tokens))] * 3


def test_images_that_are_refused() -> None:
    for bad in ((2, 1, 40, 40), (2, 3, 31, 40), (3, 40, 40)):
        with pytest.raises(ValueError, match="images must be"):
            network_of("augreg")(torch.randn(bad))
