import pytest
import torch

from sparseformers.model.mixing import AdaptiveMixing
from sparseformers.model.sampling import BilinearSampling, Stem
from tests.model.small import scattered


def test_a_point_at_a_pixel_centre_reads_that_pixel() -> None:
    features = torch.randn(2, 3, 4, 6)
    x, y = torch.meshgrid((torch.arange(6) + 0.5) / 6, (torch.arange(4) + 0.5) / 4, indexing="xy")
    points = torch.stack([x, y], dim=-1).expand(2, 4, 6, 2)  # rows as tokens, columns as points
    torch.testing.assert_close(BilinearSampling()(features, points), features.permute(0, 2, 3, 1), atol=1e-5, rtol=0)


def test_points_between_pixels_read_bilinearly() -> None:
    features = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).view(1, 1, 2, 2)
    assert BilinearSampling()(features, torch.tensor([0.5, 0.5]).view(1, 1, 1, 2)).item() == pytest.approx(1.5)
    assert BilinearSampling()(features, torch.tensor([0.5, 0.25]).view(1, 1, 1, 2)).item() == pytest.approx(0.5)


def test_the_border_goes_on_outside_the_image() -> None:
    features = torch.randn(1, 3, 4, 6)
    outside = torch.tensor([[-2.0, -2.0], [3.0, -0.1], [-0.5, 1.5], [1.0, 9.0]]).view(1, 1, 4, 2)
    corners = features[0, :, [0, 0, -1, -1], [0, -1, 0, -1]].T
    torch.testing.assert_close(BilinearSampling()(features, outside)[0, 0], corners)


def test_sampling_keeps_the_precision_of_the_map_but_interpolates_in_float32() -> None:
    features, points = torch.randn(1, 3, 64, 64).bfloat16(), torch.rand(1, 20, 9, 2)
    sampled = BilinearSampling()(features, points)
    assert sampled.dtype == torch.bfloat16
    torch.testing.assert_close(sampled, BilinearSampling()(features.float(), points).bfloat16(), atol=0, rtol=0)


def test_mixing_is_channels_then_points_as_the_token_says() -> None:
    module = AdaptiveMixing(width=16, channels=3, points=4, hidden=8)
    scattered(module, scale=0.3)
    tokens, sampled = torch.randn(2, 5, 16), torch.randn(2, 5, 4, 3)
    result = module(tokens, sampled)
    for image in range(2):
        for token in range(5):
            numbers = module.generator(tokens[image, token])
            channel, spatial = numbers[:9].view(3, 3), numbers[9:].view(32, 4)
            mixed = torch.nn.functional.gelu(spatial @ (sampled[image, token] @ channel))
            expected = tokens[image, token] + module.projection(mixed.reshape(-1))
            torch.testing.assert_close(result[image, token], expected, atol=1e-5, rtol=1e-5)


def test_mixing_gives_at_least_32_points() -> None:
    for points, points_out in ((4, 32), (16, 32), (36, 36)):
        module = AdaptiveMixing(width=16, channels=3, points=points, hidden=8)
        assert module.projection.in_features == 3 * points_out
        assert module(torch.randn(1, 2, 16), torch.randn(1, 2, points, 3)).shape == (1, 2, 16)


def test_the_stem_quarters_the_image_and_normalises_each_position() -> None:
    for height, width in ((32, 32), (64, 96), (57, 33)):
        features = Stem(8)(torch.rand(2, 3, height, width) * 4)
        assert features.shape == (2, 8, -(-height // 4), -(-width // 4))
        torch.testing.assert_close(features.mean(dim=1), torch.zeros_like(features[:, 0]), atol=1e-5, rtol=0)
        torch.testing.assert_close(features.var(dim=1, unbiased=False), torch.ones_like(features[:, 0]), atol=2e-2, rtol=0)
