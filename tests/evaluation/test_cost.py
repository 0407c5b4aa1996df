from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from sparseformers.config import BlockConfig
from sparseformers.evaluation import (
    Cost,
    Latency,
    Profile,
    compare_latency,
    measure_cost,
    measure_profile,
    multiply_adds,
    parameters,
    profile_table,
    published_multiply_adds,
)
from sparseformers.model import SparseFormer
from sparseformers.model.block import TransformerBlock
from sparseformers.named import NAMED_CONFIGS, named_config
from tests.evaluation.networks import Network


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


def test_networks_are_timed_in_turn() -> None:
    calls: list[tuple[str, tuple[int, ...]]] = []

    def model(name: str):  # type: ignore[no-untyped-def]
        return lambda images: calls.append((name, tuple(images.shape)))

    latencies = compare_latency(
        {"student": model("student"), "teacher": model("teacher")},
        {"student": (32, 48), "teacher": (56, 56)},
        batches=(1, 4),
        repeats=3,
        warm_up=2,
        device="cpu",
        autocast=None,
    )
    turn = [[("student", (batch, 3, 32, 48)), ("teacher", (batch, 3, 56, 56))] * 5 for batch in (1, 4)]
    assert calls == turn[0] + turn[1]
    assert list(latencies) == ["student", "teacher"]
    for of_one in latencies.values():
        assert [latency.batch for latency in of_one] == [1, 4]
        for latency in of_one:
            assert 0 < latency.milliseconds_p05 <= latency.milliseconds_median <= latency.milliseconds_p95
            assert latency.images_per_second == pytest.approx(1000 * latency.batch / latency.milliseconds_median)


def test_a_slower_network_takes_longer() -> None:
    matrix = torch.ones(300, 300)

    def slow(images: Tensor) -> None:
        for _ in range(50):
            matrix @ matrix

    models = {"fast": lambda images: images, "slow": slow}
    sizes = {"fast": (32, 32), "slow": (32, 32)}
    latencies = compare_latency(models, sizes, batches=(1,), repeats=5, device="cpu", autocast=None)
    assert latencies["slow"][0].milliseconds_median > 2 * latencies["fast"][0].milliseconds_median


def test_networks_are_timed_as_they_are_used() -> None:
    """In evaluation mode, without gradients, in the precision asked for; and come back as they were."""
    seen: list[tuple[bool, bool, torch.dtype]] = []

    class Watched(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append((self.training, torch.is_inference_mode_enabled(), (images[0, 0] @ images[0, 0].T).dtype))
            return images

    network = Watched().train()
    compare_latency({"a": network}, {"a": (32, 32)}, batches=(1,), repeats=1, device="cpu", autocast=torch.bfloat16)
    assert set(seen) == {(False, True, torch.bfloat16)}
    assert network.training


def test_timing_leaves_the_global_random_numbers_alone() -> None:
    network = Network()
    before = torch.get_rng_state()
    compare_latency({"a": network}, {"a": (32, 32)}, batches=(1,), repeats=1, device="cpu", autocast=None)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_network_needs_a_size() -> None:
    with pytest.raises(ValueError, match=r"every model needs an image size.*\['a'\], \['b'\]"):
        compare_latency({"a": Network()}, {"b": (32, 32)}, device="cpu", autocast=None)


def table_lines(profile: Profile) -> list[list[str]]:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(profile_table(profile, "cost"))
    return [line.replace("│", " ").replace("┃", " ").split() for line in capture.get().splitlines()]


def test_a_profile_sets_student_beside_teacher() -> None:
    student, teacher = Network(width=4), Network(width=8)
    profile = measure_profile(
        student,
        (32, 32),
        teacher=teacher,
        teacher_size=(48, 48),
        parameter_groups={"new": 10, "tuned": 4, "frozen": 2},
        batches=(1, 2),
        repeats=1,
        device="cpu",
        autocast=None,
    )
    assert profile.student == Cost(parameters=16, multiply_adds=12, size=(32, 32), published_multiply_adds=12)
    assert profile.teacher == Cost(parameters=32, multiply_adds=24, size=(48, 48), published_multiply_adds=24)
    assert [latency.batch for latency in profile.student_latency] == [1, 2]
    assert [latency.batch for latency in profile.teacher_latency] == [1, 2]
    values = json.loads(json.dumps(profile.to_dict()))
    assert values["parameter_groups"] == {"new": 10, "tuned": 4, "frozen": 2}
    assert values["student"]["multiply_adds"] == 12
    assert values["teacher_latency"][1]["batch"] == 2


def test_the_profile_s_table() -> None:
    profile = Profile(
        student=Cost(64_200_000, 3_780_000_000, (224, 224), 3_720_000_000),
        student_latency=(Latency(16, 200.0, 190.0, 210.0, 80.0),),
        teacher=Cost(86_600_000, 17_560_000_000, (224, 224), 16_850_000_000),
        teacher_latency=(Latency(16, 800.0, 790.0, 810.0, 20.0),),
        parameter_groups={"new": 7_500_000, "tuned": 28_300_000, "frozen": 28_400_000},
    )
    lines = table_lines(profile)
    assert ["parameters,", "M", "64.2", "86.6", "1.35"] in lines
    assert ["tuned", "28.3"] in lines
    assert ["multiply-adds,", "G", "3.78", "17.56", "4.65"] in lines
    assert ["as", "the", "papers", "count", "3.72", "16.85", "4.53"] in lines
    assert ["batch", "16:", "latency,", "ms", "200.0", "800.0", "4.00"] in lines
    assert ["batch", "16:", "images/s", "80.0", "20.0", "0.25"] in lines


def test_a_profile_needs_no_teacher() -> None:
    profile = measure_profile(Network(width=4), (32, 32), batches=(), device="cpu", autocast=None)
    assert profile.teacher is None
    assert profile.teacher_latency == ()
    assert ["image,", "pixels", "32", "x", "32"] in table_lines(profile)
