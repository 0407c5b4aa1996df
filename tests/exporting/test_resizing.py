from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sparseformers.config import PreprocessingConfig
from sparseformers.data import evaluation_view
from sparseformers.exporting.network import Filter, Preprocessing, resample, resampling_matrix
from tests.tiny import write_images  # noqa: F401  # imports torchvision in the order that it needs

PILLOWS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


@pytest.mark.parametrize("filter_", PILLOWS)
@pytest.mark.parametrize("size", [(61, 92), (48, 300), (33, 40)])
def test_resample__gives_the_bytes_that_pillow_gives(filter_: Filter, size: tuple[int, int]) -> None:
    height, width = size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = (41, round(41 * width / height))  # in proportion: else recent versions of Pillow choose an order of the two passes
    expected = np.asarray(Image.fromarray(noise).resize(out[::-1], PILLOWS[filter_]))
    rows, columns = (resampling_matrix(size[axis], out[axis], filter_, kept=out[axis]) for axis in (0, 1))
    given = resample(torch.from_numpy(noise).permute(2, 0, 1)[None].float(), rows, columns, to_levels=True)
    apart = (given[0].permute(1, 2, 0) - torch.from_numpy(expected.astype(np.float32))).abs()
    assert filter_ == "nearest" or apart.max() <= 2
    assert (apart > 0).float().mean() < 0.06  # sums in the middle of two levels, and middles of two pixels


@pytest.mark.parametrize("out", [(20, 20), (112, 56)])
def test_resample__is_the_bilinear_resize_of_pytorch(out: tuple[int, int]) -> None:
    images = torch.rand(2, 3, 50, 38)
    rows, columns = (resampling_matrix(images.shape[2 + axis], out[axis], "bilinear", kept=out[axis]) for axis in (0, 1))
    expected = F.interpolate(images, size=out, mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(resample(images, rows, columns), expected, rtol=0, atol=1e-5)


def test_resampling_matrix__of_a_crop_is_a_part_of_the_whole() -> None:
    whole = resampling_matrix(100, 40, "bicubic", kept=40)
    assert torch.equal(resampling_matrix(100, torch.tensor(40), "bicubic", kept=10, first=torch.tensor(7)), whole[7:17])
    torch.testing.assert_close(whole.sum(dim=1), torch.ones(40))


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
def test_gives_what_the_students_own_view_gives(options: dict[str, Any]) -> None:
    config = PreprocessingConfig(**options)
    for size in ((72, 96), (97, 71), (48, 48), (300, 211), (20, 31)):
        image = waves(*size)
        expected = evaluation_view(config)(image)
        given = Preprocessing(config)(torch.tensor(np.asarray(image))[None])[0]
        assert given.shape == expected.shape
        apart = (given - expected).abs() * 255
        assert apart.max() < 2.01
        assert (apart > 0.5).float().mean() < 0.03


def test_squash__differs_by_a_few_levels_at_most() -> None:
    config = PreprocessingConfig(size=(48, 48), crop=1.0, resize="squash")
    for image in (waves(72, 96), waves(300, 60)):
        given = Preprocessing(config)(torch.tensor(np.asarray(image))[None])[0]
        assert ((given - evaluation_view(config)(image)).abs() * 255).max() < 4.01
