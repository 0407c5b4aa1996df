"""Views: the evaluation one is timm's, the training ones are random, complete and inside the image."""

import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data import AUGMENTATIONS, evaluation_view, training_view
from sparseformers.data.transforms import SMALLEST_CROPS, Augmentation, CropView, StrongView
from sparseformers.errors import ConfigError
from tests.refusals import refused

SIZES = [(300, 200), (200, 300), (224, 224), (61, 333), (97, 80), (1, 1), (3, 200), (640, 37)]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def seeded(view: Callable[[Image.Image], Tensor], image: Image.Image, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return view(image)


class TestEvaluationView:
    @pytest.mark.parametrize(
        ("size", "options"),
        [
            ((224, 224), {"crop": 0.875}),
            ((224, 224), {"crop": 1.0}),
            ((112, 112), {"crop": 0.95}),
            ((98, 98), {"crop": 0.9, "interpolation": "bilinear"}),
            ((64, 64), {"crop": 0.9, "interpolation": "lanczos"}),
            ((96, 160), {"crop": 0.9}),
            ((112, 112), {"crop": 1.0, "resize": "squash"}),
            ((112, 112), {"crop": 0.95, "resize": "squash"}),
            ((96, 160), {"crop": 0.9, "resize": "squash"}),
        ],
    )
    def test_is_timms(self, size: tuple[int, int], options: dict[str, Any]) -> None:
        config = PreprocessingConfig(size=size, **options)
        of_timm = {"crop_pct": config.crop, "crop_mode": "squash" if config.resize == "squash" else "center"}
        plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": config.interpolation}
        reference = create_transform((3, *size), is_training=False, **of_timm, **plain)
        for image in (noise(*size) for size in (*SIZES, (80, 333), (701, 503)) if size != (3, 200)):
            torch.testing.assert_close(evaluation_view(config)(image), reference(image), rtol=0, atol=1e-6)

    def test_survives_pickling_and_a_thin_strip_does_not_fill_the_memory(self) -> None:
        view = evaluation_view(PreprocessingConfig(size=(32, 32)))
        assert torch.equal(pickle.loads(pickle.dumps(view))(noise(90, 60)), view(noise(90, 60)))
        strip = noise(200_000, 1)
        torch.testing.assert_close(view(strip), view(strip.crop((99_990, 0, 100_010, 1))), rtol=0, atol=1e-6)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
class TestTrainingView:
    def test_shape_range_and_kind(self, augmentation: Augmentation) -> None:
        for size, seed in product(SIZES, range(3)):
            view = seeded(training_view((48, 64), augmentation), noise(*size), seed)
            assert view.shape == (3, 48, 64)
            assert view.dtype == torch.float32
            assert view.min() >= 0
            assert view.max() <= 1

    def test_same_seed_same_view_also_after_pickling_and_leaves_the_image_alone(self, augmentation: Augmentation) -> None:
        view, image = training_view((32, 32), augmentation), noise(90, 60)
        assert torch.equal(seeded(view, image, 1), seeded(pickle.loads(pickle.dumps(view)), image, 1))
        own = training_view((32, 32), augmentation, crop_scale=SMALLEST_CROPS[augmentation])
        assert torch.equal(seeded(own, image, 1), seeded(view, image, 1))
        assert not torch.equal(seeded(view, image, 1), seeded(view, image, 2))
        assert image.tobytes() == noise(90, 60).tobytes()

    def test_decodes_enough_for_its_smallest_crops(self, augmentation: Augmentation) -> None:
        view = training_view((50, 100), augmentation)
        smallest_crop = view.at_least**2 * view.scale[0]  # type: ignore[attr-defined]
        assert smallest_crop * 3 / 4 >= 100**2
        smaller, larger = (training_view((48, 48), augmentation, crop_scale=scale) for scale in (0.01, 0.5))
        assert smaller.at_least > larger.at_least > 48  # type: ignore[attr-defined]


def test_crop_scale__is_the_smallest_share_of_the_area() -> None:
    for crop_scale, least, below in ((None, 0.25, 0.35), (0.05, 0.05, 0.2), (0.8, 0.8, 0.9), (1.0, 0.99, 1.01)):
        view = training_view((64, 64), "default", crop_scale=crop_scale)
        assert isinstance(view, CropView)
        torch.manual_seed(0)
        shares = [share_of_the_area(view._crop) for _ in range(60)]
        assert least - 0.03 < min(shares) < below
        assert max(shares) > 0.9
    assert all(0.085 < share_of_the_area(CropView((64, 64), (0.1, 0.6))._crop) < 0.63 for _ in range(30))


def test_crop_scale__of_strong_views() -> None:
    view = training_view((32, 32), "strong", crop_scale=0.5)
    assert isinstance(view, StrongView)
    plain = StrongView(view.size, view.scale, degrees=0.0, shear=0.0)
    torch.manual_seed(0)
    assert min(share_of_the_area(plain._turned_crop) for _ in range(60)) > 0.4
    shares = [share_of_the_area(StrongView((32, 32), degrees=0.0, shear=0.0)._turned_crop) for _ in range(60)]
    assert min(shares) < 0.2
    assert max(shares) > 0.7


def share_of_the_area(crop: Callable[[Image.Image], Image.Image]) -> float:
    """The share of an image that a random crop shows: on a ramp along x and one along y, the product of the spans of values."""
    x, y = np.meshgrid(np.linspace(0, 255, 256), np.linspace(0, 255, 256))
    shown = np.asarray(crop(Image.fromarray(np.stack([x, y, 0 * x], axis=-1).round().astype(np.uint8)))).astype(float)
    span = np.ptp(shown, axis=(0, 1)) / 255
    return float(span[0] * span[1])


class TestStrongView:
    def test_nothing_is_filled_in(self) -> None:
        views = StrongView((40, 40), degrees=45.0, shear=25.0)
        for size, seed in product([(300, 200), (64, 64), (40, 300)], range(60)):
            torch.manual_seed(seed)
            assert np.asarray(views._turned_crop(Image.new("RGB", size, "white"))).min() == 255

    def test_geometry(self) -> None:
        """A view of a linear image is linear: its gradient is that of the rotation, so an angle can be read off it."""
        x, y = np.meshgrid(np.arange(256), np.arange(256))
        plane = Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))
        torch.manual_seed(0)
        for _ in range(50):
            view = np.asarray(StrongView((64, 64), scale=(0.2, 0.4), shear=0.0)._turned_crop(plane)).astype(float)
            (x_down, x_right), (y_down, y_right) = (np.gradient(view[..., channel]) for channel in (0, 1))
            right, down = np.array([x_right.mean(), y_right.mean()]), np.array([x_down.mean(), y_down.mean()])
            assert abs(right @ down) < 0.02 * np.linalg.norm(right) * np.linalg.norm(down)
            assert abs(np.degrees(np.arctan2(-down[0], down[1]))) < 31
            assert x_right.std() < 0.5

    def test_flips_half_of_the_views_and_is_grey_now_and_then(self) -> None:
        x = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (256, 1, 3))
        torch.manual_seed(0)
        views = [np.asarray(StrongView((32, 32))._turned_crop(Image.fromarray(x))).astype(int) for _ in range(200)]
        flipped = sum(view[16, 0, 0] > view[16, -1, 0] for view in views)
        assert 70 < flipped < 130
        seen = [StrongView((16, 16))(noise(60, 60)) for _ in range(200)]
        assert 5 < sum(bool((view.amax(0) - view.amin(0)).max() < 1e-6) for view in seen) < 50


def test_unknown_augmentation() -> None:
    with refused(ConfigError, "There is no augmentation 'stronk'.", "Did you mean 'strong'? Known: default, strong."):
        training_view((32, 32), "stronk")  # type: ignore[arg-type]
