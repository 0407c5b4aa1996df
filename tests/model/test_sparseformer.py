from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from sparseformers import rois as roi_arithmetic
from sparseformers.model import FrontOutput, SparseFormer, SparseFormerOutput
from tests.model.small import Pooling, small_config, small_model

POOLINGS: list[Pooling] = ["token", "average", "attention"]
DINOV2_GIANT = {"gated": True, "activation": "silu", "query_key_norm": True, "layer_scale": True, "qkv_bias": False}


def assert_same(one: SparseFormerOutput, other: SparseFormerOutput, *, tolerance: float = 0.0) -> None:
    for mine, theirs in zip(one, other, strict=True):
        if mine is None:
            assert theirs is None
        else:
            torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 224), (224, 40)])
def test_shapes_at_any_size(size: tuple[int, int]) -> None:
    output = small_model(tokens=6, iterations=2)(torch.rand(2, 3, *size))
    assert output.embedding.shape == (2, 32)
    assert output.logits is None
    assert output.tokens.shape == (2, 7, 32)
    assert output.rois.shape == (2, 3, 6, 4)


@pytest.mark.parametrize("tokens", [1, 7, 48])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_any_number_of_tokens(tokens: int, pooling: Pooling) -> None:
    output = small_model(tokens=tokens, pooling=pooling)(torch.rand(1, 3, 32, 32))
    assert output.embedding.shape == (1, 32)
    assert output.embedding.isfinite().all()
    assert output.tokens.shape == (1, tokens + 1, 32)
    assert output.rois.shape == (1, 3, tokens, 4)


@pytest.mark.parametrize("prefix_tokens", [0, 1, 5])
def test_prefix_tokens_come_first(prefix_tokens: int) -> None:
    model = small_model(pooling="average", prefix_tokens=prefix_tokens, depth=0, final_norm=False)
    images = torch.rand(2, 3, 32, 32)
    output = model(images)
    assert output.tokens.shape == (2, prefix_tokens + 6, 32)
    focus = model.focusing(model.normalise(images))
    torch.testing.assert_close(output.tokens[:, prefix_tokens:], focus.tokens)
    torch.testing.assert_close(output.embedding, focus.tokens.mean(dim=1))
    for index in range(prefix_tokens):
        torch.testing.assert_close(output.tokens[0, index], model.cortex.prefix.tokens[index])


def test_average_pooling_may_take_in_the_prefix_tokens() -> None:
    output = small_model(pooling="average", pool_prefix_tokens=True)(torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(output.embedding, output.tokens.mean(dim=1))


def test_token_pooling_takes_the_first_token_through_norm_and_projection() -> None:
    model = small_model(projection=12, projection_bias=True, pooled_norm=True, classes=5)
    output = model(torch.rand(2, 3, 32, 32))
    assert output.embedding.shape == (2, 12)
    assert output.logits is not None
    torch.testing.assert_close(output.embedding, model.cortex.projection(model.cortex.pooled_norm(output.tokens[:, 0])))
    torch.testing.assert_close(output.logits, model.cortex.classifier(output.embedding))


def test_images_are_normalised_inside() -> None:
    model, images = small_model(), torch.rand(1, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(model.normalise(images), expected)
    assert not any(name.startswith("normalise") for name in model.state_dict())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((32, 32), "images must be B x 3 x H x W, not 32 x 32"),
        ((3, 32, 32), "images must be B x 3 x H x W, not 3 x 32 x 32"),
        ((1, 1, 32, 32), "images must be B x 3 x H x W, not 1 x 1 x 32 x 32"),
        ((1, 3, 31, 64), "images must be at least 32 pixels a side, not 31 x 64"),
        ((1, 3, 64, 8), "images must be at least 32 pixels a side, not 64 x 8"),
    ],
)
def test_images_that_are_none(shape: tuple[int, ...], message: str) -> None:
    model = small_model()
    for call in (model, model.sampling_points):
        with pytest.raises(ValueError, match=message):
            call(torch.rand(shape))


def test_forward_changes_nothing_and_repeats_itself() -> None:
    model, images = small_model().train(), torch.rand(2, 3, 32, 32)
    before = {name: value.clone() for name, value in [*model.named_parameters(), *model.named_buffers()]}
    given, attributes = images.clone(), {name: set(vars(module)) for name, module in model.named_modules()}
    first, second = model(images), model(images)
    assert_same(first, second)
    assert torch.equal(images, given)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        assert torch.equal(value, before[name]), name
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    model, images = small_model(), torch.rand(3, 3, 40, 40)
    together = model(images).embedding
    alone = torch.cat([model(image[None]).embedding for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_rois_begin_with_the_learnt_ones_and_move() -> None:
    model = small_model(tokens=6)
    rois = model(torch.rand(2, 3, 32, 32)).rois
    torch.testing.assert_close(rois[:, 0], model.focusing.initial_rois.detach().expand(2, -1, -1))
    assert not torch.equal(rois[:, 1], rois[:, 0])
    assert not torch.equal(rois[:, 2], rois[:, 1])
    assert rois.dtype == torch.float32


def test_rois_and_points_stay_float32_under_autocast() -> None:
    model, images = small_model(), torch.rand(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        output, points = model(images), model.sampling_points(images)
    assert output.embedding.dtype == torch.bfloat16
    assert output.rois.dtype == torch.float32
    assert all(look.dtype == torch.float32 for look in points)
    for values in (output.rois[:, 1:], *points):
        assert not torch.equal(values, values.bfloat16().float())  # not merely cast back
    reference = model(images)
    assert torch.cosine_similarity(output.embedding.float(), reference.embedding).min() > 0.99


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "token", "projection": 12, "classes": 5},
        {"pooling": "average", "pooled_norm": True, "pool_prefix_tokens": True},
        {"pooling": "attention", "prefix_tokens": 0},
        {"pooling": "token", "prefix_tokens": 5, "block": DINOV2_GIANT},
    ],
)
def test_gradients_reach_every_parameter(options: dict[str, Any]) -> None:
    model = small_model(**options).train()
    output = model(torch.rand(2, 3, 48, 48))
    result = output.embedding if output.logits is None else output.logits
    (result * torch.randn_like(result)).sum().backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_compiles_without_graph_breaks(pooling: Pooling) -> None:
    torch._dynamo.reset()
    model, images = small_model(pooling=pooling, classes=5), torch.rand(2, 3, 40, 56)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert_same(compiled(images), model(images), tolerance=1e-6)


def test_exports_for_any_batch_and_size() -> None:
    model = small_model(projection=12)
    shapes = {"images": {0: Dim("batch"), 2: Dim.AUTO, 3: Dim.AUTO}}
    exported = torch.export.export(model, (torch.rand(2, 3, 64, 64),), dynamic_shapes=shapes).module()
    for size in ((5, 3, 48, 80), (1, 3, 224, 96)):
        images = torch.rand(size)
        with torch.no_grad():
            assert_same(SparseFormerOutput(*exported(images)), model(images), tolerance=1e-5)


def test_all_forms_of_blocks_at_once() -> None:
    model = small_model(prefix_tokens=5, block=DINOV2_GIANT)
    output = model(torch.rand(2, 3, 48, 48))
    assert output.tokens.shape == (2, 11, 32)
    assert output.embedding.isfinite().all()


class PatchFront(nn.Module):
    """Another way from an image to tokens: one per quarter of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(3, 32)

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        quarters = nn.functional.adaptive_avg_pool2d(images, 2).flatten(2).transpose(1, 2)
        rois = roi_arithmetic.initial_grid(4).expand(len(images), 1, -1, -1)
        return FrontOutput(self.projection(quarters), rois, ())


def test_another_front_fits_the_seam() -> None:
    model = SparseFormer(small_config(), front=PatchFront())
    images = torch.rand(2, 3, 32, 32)
    output = model(images)
    assert output.tokens.shape == (2, 5, 32)
    assert output.rois.shape == (2, 1, 4, 4)
    assert model.sampling_points(images) == ()
    assert {name.split(".")[1] for name in model.state_dict() if name.startswith("focusing.")} == {"projection"}
