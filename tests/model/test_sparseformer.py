import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from sparseformers import rois as roi_arithmetic
from sparseformers.config import SparseFormerConfig
from sparseformers.model import FrontOutput, SparseFormer, SparseFormerOutput
from tests.exporting.students import FRONTS, student_of
from tests.model.small import Pooling, small_config, small_model

POOLINGS: list[Pooling] = ["token", "average", "attention"]
DINOV2_GIANT = {"gated": True, "activation": "silu", "query_key_norm": True, "layer_scale": True, "qkv_bias": False}


def assert_same(one: SparseFormerOutput, other: SparseFormerOutput, *, tolerance: float = 0.0) -> None:
    for mine, theirs in zip(one, other, strict=True):
        if mine is None:
            assert theirs is None
        else:
            torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=tolerance)


def test_images_are_normalised_inside() -> None:
    model, images = small_model(), torch.rand(1, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(model.normalise(images), expected)
    assert not any(name.startswith("normalise") for name in model.state_dict())


def test_images_that_are_none() -> None:
    model = small_model()
    for shape, message in (
        ((32, 32), "images must be B x 3 x H x W, not 32 x 32"),
        ((3, 32, 32), "images must be B x 3 x H x W, not 3 x 32 x 32"),
        ((1, 1, 32, 32), "images must be B x 3 x H x W, not 1 x 1 x 32 x 32"),
        ((1, 3, 31, 64), "images must be at least 32 pixels a side, not 31 x 64"),
        ((1, 3, 64, 8), "images must be at least 32 pixels a side, not 64 x 8"),
    ):
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


@pytest.mark.parametrize("front", FRONTS)
def test_shapes_at_any_size_and_batch(front: str) -> None:
    model = student_of(FRONTS[front])
    stages = {"grid": 1, "mixed": 1 + 2, "focusing": 1 + 2, "original": 1 + 2 + 1}[front]
    tokens, prefix = model.config.focusing.tokens, model.config.cortex.prefix_tokens
    for batch, height, width in ((1, 32, 32), (2, 33, 47), (3, 64, 224), (1, 224, 40)):
        images = torch.rand(batch, 3, height, width)
        output = model(images)
        assert output.embedding.shape == (batch, 32)
        assert output.logits is None
        assert output.tokens.shape == (batch, prefix + tokens, 32)
        assert output.rois.shape == (batch, stages, tokens, 4)
        points = model.sampling_points(images)
        assert {(*each.shape[:2], each.shape[-1]) for each in points} == {(batch, tokens, 2)}
        assert len(points) == {"grid": 1, "mixed": 1, "focusing": 2 + 1, "original": 2 + 1}[front]


def test_any_number_of_tokens_and_pooling() -> None:
    for tokens in (1, 7, 48):
        for pooling in POOLINGS:
            output = small_model(tokens=tokens, pooling=pooling)(torch.rand(1, 3, 32, 32))
            assert output.embedding.shape == (1, 32)
            assert output.embedding.isfinite().all()
            assert output.tokens.shape == (1, tokens + 1, 32)


@pytest.mark.parametrize("front", FRONTS)
def test_rois_and_points_stay_float32_under_autocast(front: str) -> None:
    model, images = student_of(FRONTS[front]), torch.rand(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        output, points = model(images), model.sampling_points(images)
    assert output.embedding.dtype == (torch.bfloat16 if front in ("focusing", "original") else torch.float32)  # a prefix in front
    assert all(values.dtype == torch.float32 for values in (output.rois, *points))
    for values in (output.rois[:, 1:], *points) if front in ("focusing", "original") else ():
        assert not torch.equal(values, values.bfloat16().float())  # not merely cast back
    assert torch.cosine_similarity(output.embedding.float(), model(images).embedding).min() > 0.99


@pytest.mark.parametrize(
    "config",
    [
        *FRONTS.values(),
        small_config(projection=12, classes=5),
        small_config(pooling="average", pooled_norm=True, pool_prefix_tokens=True),
        small_config(pooling="attention", prefix_tokens=0),
        small_config(prefix_tokens=5, block=DINOV2_GIANT),
    ],
)
def test_gradients_reach_every_parameter(config: SparseFormerConfig) -> None:
    model = student_of(config)
    output = model.train()(torch.rand(2, 3, 48, 48))
    result = output.embedding if output.logits is None else output.logits
    told = result if output.attention_map is None else torch.cat([result, output.attention_map.flatten(1)], dim=1)
    (told * torch.randn_like(told)).sum().backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)


@pytest.mark.parametrize("front", FRONTS)
def test_compiles_without_graph_breaks(front: str) -> None:
    torch._dynamo.reset()
    model, images = student_of(FRONTS[front]), torch.rand(2, 3, 40, 56)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert_same(compiled(images), model(images), tolerance=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_compiles_with_every_pooling(pooling: Pooling) -> None:
    torch._dynamo.reset()
    cortex, given = small_model(pooling=pooling, classes=5).cortex, (torch.rand(2, 6, 32), torch.rand(2, 6, 4))
    with torch.no_grad():
        compiled = torch.compile(cortex, fullgraph=True, backend="eager")(*given)
        torch.testing.assert_close(compiled.logits, cortex(*given).logits)


@pytest.mark.parametrize("front", FRONTS)
def test_exports_for_any_batch_and_size(front: str) -> None:
    model = student_of(FRONTS[front])
    shapes = {"images": {0: Dim("batch"), 2: Dim("height", min=32, max=4096), 3: Dim("width", min=32, max=4096)}}
    exported = torch.export.export(model, (torch.rand(2, 3, 64, 64),), dynamic_shapes=shapes).module()
    for size in ((5, 3, 48, 80), (1, 3, 224, 96)):
        images = torch.rand(size)
        with torch.no_grad():
            assert_same(SparseFormerOutput(*exported(images)), model(images), tolerance=1e-5)


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
