"""v1, the original SparseFormer: its front, its cortex, and training it."""

import pytest
import torch
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.model import SparseFormer
from sparseformers.model.layers import StochasticDepth
from sparseformers.model.mixing import OriginalMixing
from sparseformers.model.original import ClampGradient, OriginalLayer, OriginalSampling
from sparseformers.model.sampling import BilinearSampling
from tests.model.small import original_config, original_model, scattered


def test_every_token_has_its_own_embedding_and_all_norms_their_epsilon() -> None:
    focusing = original_model(norm_eps=1e-3).focusing
    assert focusing.token.shape == (6, 16)
    eps = {name: module.eps for name, module in focusing.named_modules() if isinstance(module, nn.LayerNorm)}
    assert {value for name, value in eps.items() if "mixing.generator" in name} == {1e-5}
    assert {value for name, value in eps.items() if "mixing.generator" not in name} == {1e-3}


def test_a_layer_attends_adjusts_samples_and_feeds_forward_in_this_order() -> None:
    layer = OriginalLayer(16, original_config().focusing)
    layer.start()
    scattered(layer)
    features, tokens = torch.randn(2, 8, 10, 12), torch.randn(2, 6, 16)
    rois = roi_arithmetic.initial_grid(6).expand(2, -1, -1)
    step = layer(features, tokens, rois)
    block = layer.block
    attended = tokens + block.attn(block.norm1(tokens))
    moved = roi_arithmetic.adjust(rois, layer.adjustment.delta(attended))
    sampled, points = layer.sampling(features, attended, moved)
    torch.testing.assert_close(step.rois, moved)
    torch.testing.assert_close(step.points, points)
    torch.testing.assert_close(step.tokens, sampled + block.mlp(block.norm2(sampled)))


def test_mixing_has_biases_and_two_activations() -> None:
    module = OriginalMixing(width=16, channels=3, points=4, hidden=8)
    scattered(module, scale=0.3)
    tokens, sampled = torch.randn(2, 16), torch.randn(2, 4, 3)
    result = module(tokens[None], sampled[None])[0]
    for token in range(2):
        numbers = module.generator(tokens[token])
        channel, spatial = numbers[:9].view(3, 3), numbers[9:].view(32, 4)
        mixed = nn.functional.gelu(sampled[token] @ channel + module.channel_bias)
        mixed = nn.functional.gelu(spatial @ mixed + module.spatial_bias[:, None])
        expected = tokens[token] + module.projection(mixed.reshape(-1))
        torch.testing.assert_close(result[token], expected, atol=1e-5, rtol=1e-5)


def test_nothing_lies_outside_the_image() -> None:
    features = torch.randn(1, 3, 4, 6)
    outside = torch.tensor([[-2.0, -2.0], [3.0, -0.5], [1.5, 0.5]]).view(1, 1, 3, 2)
    assert BilinearSampling(outside="zeros")(features, outside).eq(0).all()
    corner = BilinearSampling(outside="zeros")(features, torch.zeros(1, 1, 1, 2))
    torch.testing.assert_close(corner[0, 0, 0], features[0, :, 0, 0] / 4)


def test_the_front_sees_nothing_outside_the_image() -> None:
    sampling = OriginalSampling(16, original_config().focusing)
    sampling.start()
    scattered(sampling)
    tokens, rois = torch.randn(1, 2, 16), torch.tensor([[[3.0, 3.0, 4.0, 4.0], [-9.0, 0.0, -8.0, 1.0]]])
    seen = [sampling(features, tokens, rois).tokens for features in (torch.randn(1, 8, 9, 9), torch.randn(1, 8, 9, 9))]
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)


def gradient_to_points(model: SparseFormer, images: Tensor, scale: float) -> Tensor:
    """What reaches the points of the last sampling, per unit of ``scale`` of the loss."""
    sampling = model.focusing.last_layer.sampling
    caught: list[Tensor] = []
    hook = sampling.sampling_points.register_forward_hook(lambda _, __, points: points.register_hook(caught.append) and None)
    (model(images).embedding.sum() * scale).backward()
    hook.remove()
    return caught[0]


def test_the_gradient_to_the_points_is_clamped_to_one_over_the_height_of_the_map() -> None:
    model, images = original_model().train(), torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        model.cortex.norm.weight.copy_(torch.randn(32))
    small, large = gradient_to_points(model, images, 1e-3), gradient_to_points(model, images, 1e6)
    limit = 1 / 16  # of a map of 16 x 24
    assert small.abs().max() < limit
    assert small.any()
    assert large.abs().max() == limit
    torch.testing.assert_close(large, (small * 1e9).clamp(-limit, limit), atol=1e-3, rtol=1e-3)


def test_clamping_the_gradient_leaves_the_values_alone_and_compiles() -> None:
    def clamped(x: Tensor) -> Tensor:
        return ClampGradient.apply(x, 0.5)

    torch._dynamo.reset()
    for function in (clamped, torch.compile(clamped, fullgraph=True, backend="aot_eager")):
        x = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
        y = function(x)
        assert torch.equal(y, x)
        (y * torch.tensor([0.1, -7.0, 7.0])).sum().backward()
        assert x.grad.tolist() == pytest.approx([0.1, -0.5, 0.5])


def test_stochastic_depth_leaves_out_whole_images_in_training_only() -> None:
    module, x = StochasticDepth(0.4), torch.rand(1000, 3, 2) + 1
    kept = module.train()(x)
    whole = kept.flatten(1).ne(0)
    assert torch.equal(whole.any(dim=1), whole.all(dim=1))
    assert whole.any(dim=1).float().mean().item() == pytest.approx(0.6, abs=0.05)
    torch.testing.assert_close(kept[whole.all(dim=1)], x[whole.all(dim=1)] / 0.6)
    assert torch.equal(module.eval()(x), x)


def test_stochastic_depth_grows_towards_the_last_block() -> None:
    model = original_model(stochastic_depth=0.2)
    dropped = [block.drop for block in model.cortex.blocks]
    assert [1 - drop.kept for drop in dropped] == pytest.approx([0.1, 0.2])
    assert 1 - model.focusing.layer.block.drop.kept == pytest.approx(0.2)
    images = torch.rand(4, 3, 32, 32)
    assert torch.equal(model(images).embedding, model(images).embedding)
    assert not torch.equal(model.train()(images).embedding, model(images).embedding)
