"""A folded student gives what the student gives, and one folded for its embedding gives that, with less work."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from sparseformers.config import SparseFormerConfig
from sparseformers.errors import ConfigError
from sparseformers.evaluation import multiply_adds
from sparseformers.inference import fold, fold_embedding, pack_weights
from sparseformers.inference.folding import ClassTokenBlock, FoldedGrid
from sparseformers.inference.packing import KEPT
from sparseformers.model import SparseFormer
from sparseformers.model.block import TransformerBlock
from sparseformers.model.layers import LayerScale
from sparseformers.model.sampling import Stem
from sparseformers.model.sparseformer import Normalise
from sparseformers.named import NAMED_CONFIGS
from tests.exporting.students import FRONTS, student_of
from tests.model.small import grid_config, scattered, small_config
from tests.model.test_block import block_config
from tests.model.test_forward_guard import recorded

MOST_KERNELS = {"grid": 15, "mixed": 99, "focusing": 167, "original": 150}
"""Of a folded student's forward."""
BLOCKS: tuple[dict[str, Any], ...] = (
    {},
    {"layer_scale": True},
    {"query_key_norm": True},
    {"gated": True, "activation": "silu"},
    {"qkv_bias": False, "attention_bias": False, "feed_forward_bias": False},
    {"norm_eps": 1e-5, "activation": "quick_gelu"},
)
"""Forms of an inherited block."""
CORTICES: tuple[dict[str, Any], ...] = (
    {},
    {"prefix_tokens": 5},
    {"pool_first": True},
    {"pooled_norm": True, "final_norm": False},
    {"projection": 24, "projection_bias": True, "classes": 3},
    {"depth": 1},
    {"depth": 0},
    {"pooling": "average"},
    {"pooling": "average", "pool_prefix_tokens": True},
    {"pooling": "attention", "prefix_tokens": 0},
    {"pooling": "attention", "pool_prefix_tokens": True},
)
"""Forms of a cortex."""


def require_same(student: SparseFormer, network: Any, *, tokens: int | None = None, size: tuple[int, int] = (48, 48)) -> None:
    """All that a student gives, or its embedding alone, to 1e-5 of its length."""
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        expected, given = student(images, tokens), network(images)
        if isinstance(given, Tensor):
            assert given.dtype == torch.float32
            pairs = [(expected.embedding, given)]
        else:
            looked_at = student.focusing(student.normalise(images), tokens)
            seen = network.focusing(network.normalise(images), network.tokens)
            pairs = [*zip(expected, given, strict=True), *zip(looked_at.points, seen.points, strict=True)]
    for one, other in pairs:
        if one is not None:
            assert one.shape == other.shape
            assert (one - other).norm() <= 1e-5 * one.norm()


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("size", [(48, 48), (33, 70)])
def test_gives_what_the_student_gives(front: str, size: tuple[int, int]) -> None:
    student = student_of(FRONTS[front], mean=(0.4, 0.5, 0.1), std=(0.2, 0.3, 0.6))
    require_same(student, fold(student), size=size)
    require_same(student, fold_embedding(student), size=size)


@pytest.mark.parametrize("name", ["sf_base_clip", "sf_large_clip", "sf_v1_tiny"])  # 48, 63 and 49 tokens
def test_named_sizes_give_what_they_gave(name: str) -> None:
    config = NAMED_CONFIGS[name]
    with torch.device("meta"):
        student = SparseFormer(replace(config, cortex=replace(config.cortex, depth=1)))  # all blocks of a cortex are alike
    student = student.to_empty(device="cpu").eval()
    student.normalise = Normalise(config.preprocessing.mean, config.preprocessing.std)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter, value in student.named_parameters():
            value.normal_(1.0 if "norm" in parameter and parameter.endswith("weight") else 0.0, 0.03)
        student.focusing.initial_rois.copy_(torch.rand(config.focusing.tokens, 4))
    require_same(student, fold(student), size=(64, 64))


@pytest.mark.parametrize("tokens", [1, 4, 6, 7])
def test_inherited_front__is_folded_at_any_number_of_tokens(tokens: int) -> None:
    student = student_of(FRONTS["grid"])
    folded = fold(student, tokens=tokens)
    assert isinstance(folded.focusing, FoldedGrid) == (tokens != 7)  # whose rows have 2, 3 and 2 cells
    require_same(student, folded, tokens=tokens, size=(50, 40))


@pytest.mark.parametrize("options", [{"pre_norm": True}, {"patch_bias": False}])
def test_inherited_front__in_other_forms(options: dict[str, bool]) -> None:
    config = grid_config()
    student = student_of(replace(config, focusing=replace(config.focusing, **options)))
    require_same(student, fold(student))


def test_layer_scales__become_part_of_linear_layers() -> None:
    student = student_of(small_config(block={"layer_scale": True, "feed_forward_bias": False}))
    folded = fold(student)
    assert any(isinstance(module, LayerScale) for module in student.modules())
    assert not any(isinstance(module, LayerScale) for module in folded.modules())
    require_same(student, folded)


@pytest.mark.parametrize("make", [fold, fold_embedding])
@pytest.mark.parametrize("config", [*FRONTS.values(), small_config(classes=3, block={"layer_scale": True})])
def test_the_student_stays_as_it_was(config: SparseFormerConfig, make: Callable[[SparseFormer], nn.Module]) -> None:
    student = student_of(config).train()
    before = copy.deepcopy(student.state_dict())
    folded = make(student)
    assert student.training
    assert not folded.training
    assert not any(value.requires_grad for value in folded.parameters())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    mine = {value.data_ptr() for value in student.parameters()}
    assert not mine & {value.data_ptr() for value in folded.parameters()}


@pytest.mark.parametrize("front", FRONTS)
def test_needs_fewer_kernels(front: str) -> None:
    student, images = student_of(FRONTS[front]), torch.rand(2, 3, 64, 48)
    folded = recorded(fold(student), images).kernels
    assert folded <= MOST_KERNELS[front]
    # One product more, as queries are made apart from keys and values, and a copy of the token that they are made of.
    assert recorded(fold_embedding(student), images).kernels <= folded + 2


@pytest.mark.parametrize("front", ["grid", pytest.param("original", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(front: str) -> None:
    folded = fold(student_of(FRONTS[front]))
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        compiled = torch.compile(folded, fullgraph=True, backend="aot_eager")(images)
        torch.testing.assert_close(compiled.embedding, folded(images).embedding, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [fold, fold_embedding])
def test_compiles_and_exports_for_any_batch_and_size(make: Callable[[SparseFormer], nn.Module]) -> None:
    network = make(student_of(FRONTS["focusing"]))
    shapes = {"images": {0: Dim("batch", min=1), 2: Dim("height", min=32, max=4096), 3: Dim("width", min=32, max=4096)}}
    program = torch.export.export(network, (torch.rand(2, 3, 48, 64),), dynamic_shapes=shapes).module()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    images = torch.rand(5, 3, 70, 40)
    with torch.no_grad():
        given = [each(images) for each in (network, program, compiled)]
    expected, *others = (each if isinstance(each, Tensor) else each.embedding for each in given)
    for other in others:
        torch.testing.assert_close(other, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", BLOCKS)
def test_class_token_block__gives_the_first_row_of_the_block(options: dict[str, Any]) -> None:
    for tokens in (1, 2, 7):
        block = scattered(TransformerBlock(block_config(**options)), scale=0.2).eval()
        x = torch.randn(3, tokens, 32)
        with torch.no_grad():
            expected, given = block(x)[:, :1], ClassTokenBlock(block)(x)
        assert given.shape == (3, 1, 32)
        torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", BLOCKS)
def test_the_embedding__with_all_forms_of_blocks(options: dict[str, Any]) -> None:
    student = student_of(small_config(block=options))
    require_same(student, fold_embedding(student))
    require_same(student, pack_weights(fold_embedding(student)))


@pytest.mark.parametrize("options", CORTICES)
def test_the_embedding__with_all_forms_of_cortices(options: dict[str, Any]) -> None:
    student = student_of(small_config(**options))
    network = fold_embedding(student)
    require_same(student, network)
    alone = sum(isinstance(module, ClassTokenBlock) for module in network.modules())
    assert alone == (options.get("pooling", "token") == "token" and options.get("depth", 2) > 0)


def test_the_embedding__at_another_number_of_tokens() -> None:
    student = student_of(FRONTS["grid"])
    require_same(student, fold_embedding(student, tokens=9), tokens=9)
    with pytest.raises(ValueError, match="4 tokens and no other number, not 5"):
        fold_embedding(student_of(FRONTS["focusing"]), tokens=5)


def test_the_embedding__spares_what_only_other_outputs_need() -> None:
    student = student_of(small_config(tokens=6, prefix_tokens=3, classes=5))
    images = torch.empty(1, 3, 48, 48)
    spared = multiply_adds(fold(student), images) - multiply_adds(fold_embedding(student), images)
    tokens, width, hidden = 9, 32, 48
    by_layers = (tokens - 1) * (2 * width**2 + 2 * width * hidden)  # queries and the projection, and the feed-forward network
    by_attention = 2 * (tokens - 1) * tokens * width
    assert spared == by_layers + by_attention + 5 * width


def test_refuses_what_is_no_image() -> None:
    with pytest.raises(ValueError, match="at least 32 pixels a side"):
        fold_embedding(student_of(FRONTS["grid"]))(torch.rand(1, 3, 16, 48))


@pytest.mark.parametrize(
    "block", [{}, {"activation": "relu"}, {"activation": "quick_gelu"}, {"activation": "gelu_tanh"}, {"gated": True}]
)
def test_packed__gives_what_the_student_gives(block: dict[str, object]) -> None:
    student = student_of(small_config(block=block))
    packed = pack_weights(fold(student))
    assert not any(isinstance(module, torch.nn.Linear) for module in packed.modules())
    require_same(student, packed)


def test_packed__without_folding() -> None:
    config = FRONTS["original"]
    student = cast(SparseFormer, scattered(SparseFormer(cast(SparseFormerConfig, config)).eval()))
    images = torch.rand(2, 3, 48, 48)
    packed = pack_weights(student)
    with torch.no_grad():
        torch.testing.assert_close(packed(images).embedding, student(images).embedding, rtol=0, atol=1e-5)
    assert any(isinstance(module, torch.nn.Linear) for module in student.modules())


@pytest.mark.parametrize(("kept", "sizes"), [(KEPT, [5]), (2 * 4 * 8 * 25 * 24 + 2, [2, 2, 1]), (1, [1] * 5)])
def test_packed__takes_few_images_at_a_time_in_the_stem(kept: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparseformers.inference.packing.KEPT", kept)
    student = student_of(FRONTS["focusing"])
    packed, images, seen = pack_weights(fold(student)), torch.rand(5, 3, 50, 48), []
    stem = next(module for module in packed.modules() if isinstance(module, Stem))
    assert stem.convolution.out_channels == 8
    stem.register_forward_hook(lambda _module, given, _result: seen.append(len(given[0])))
    with torch.no_grad():
        torch.testing.assert_close(packed(images).embedding, student(images).embedding, rtol=0, atol=1e-5)
    assert seen == sizes


def test_packed__refuses_what_is_not_in_float32() -> None:
    with pytest.raises(ConfigError, match=r"float32 on a CPU.*\.float\(\)"):
        pack_weights(student_of(FRONTS["grid"]).bfloat16())
