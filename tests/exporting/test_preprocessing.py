from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sparseformers.config import PreprocessingConfig
from sparseformers.data import evaluation_view
from sparseformers.exporting.resizing import Preprocessing


def waves(height: int, width: int) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width] / 30
    values = np.stack([np.sin(3 * rows + phase) + np.cos(7 * columns * rows) for phase in range(3)], axis=-1)
    return Image.fromarray((127 + 60 * values).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "options",
    [
        {"size": (48, 48), "crop": 0.875},
        {"size": (48, 48), "crop": 1.0, "interpolation": "bilinear"},
        {"size": (40, 56), "crop": 0.9},
        {"size": (48, 48), "crop": 0.95, "interpolation": "lanczos"},
    ],
)
@pytest.mark.parametrize("size", [(72, 96), (97, 71), (48, 48), (300, 211), (20, 31)])
def test_gives_what_the_students_own_view_gives(options: dict[str, Any], size: tuple[int, int]) -> None:
    image, config = waves(*size), PreprocessingConfig(**options)
    expected = evaluation_view(config)(image)
    given = Preprocessing(config)(torch.tensor(np.asarray(image))[None])[0]
    assert given.shape == expected.shape
    apart = (given - expected).abs() * 255
    assert apart.max() < 2.01
    assert (apart > 0.5).float().mean() < 0.03


@pytest.mark.parametrize("size", [(72, 96), (300, 60)])
def test_squash__differs_by_a_few_levels_at_most(size: tuple[int, int]) -> None:
    image, config = waves(*size), PreprocessingConfig(size=(48, 48), crop=1.0, resize="squash")
    given = Preprocessing(config)(torch.tensor(np.asarray(image))[None])[0]
    assert ((given - evaluation_view(config)(image)).abs() * 255).max() < 4.01
