"""Pictures and students small enough for tests."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from sparseformers.config import PreprocessingConfig
from sparseformers.figures import RoIPicture, token_colours
from sparseformers.figures.data import TitledImage
from sparseformers.model import SparseFormer
from sparseformers.rois import initial_grid
from tests.model.small import small_config


def tiny_student(*, tokens: int = 5, iterations: int = 3, **preprocessing: Any) -> SparseFormer:
    """Random weights, also in the branches that start at zero, so that RoIs and points depend on the image."""
    config = small_config(tokens=tokens, iterations=iterations, depth=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = SparseFormer(replace(config, preprocessing=PreprocessingConfig(**preprocessing)))
        for parameter in student.focusing.layer.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    return student


def picture(
    *, height: int = 40, width: int = 60, stages: int = 5, tokens: int = 6, points: int = 4, title: str = "cat.png"
) -> RoIPicture:
    """Grey, with random RoIs that get smaller by the stage."""
    generator = torch.Generator().manual_seed(1)
    rois = torch.stack([0.5 + (initial_grid(tokens) - 0.5) / (1 + stage) for stage in range(stages)])
    looks = tuple(torch.rand(tokens, points, 2, generator=generator) for _ in range(stages))
    return RoIPicture(image=torch.full((3, height, width), 0.5), rois=rois, points=looks, title=title)


def photographs_of(images: Tensor) -> list[TitledImage]:
    """Images B x 3 x H x W in [0, 1] as decoded photographs, named a, b, c ..."""
    return [("abcdefgh"[index], functional.to_pil_image(image)) for index, image in enumerate(images)]


def noise(width: int, height: int) -> Image.Image:
    """A photograph on which no two parts are alike."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def in_bytes(images: Tensor) -> Tensor:
    """The images in steps of 1/255, which photographs of them keep."""
    return (images * 255).round() / 255


def looking_at(points: list[tuple[float, float]], *, side: float = 0.1) -> RoIPicture:
    """A picture with one token whose last look is at these points; its RoI has sides of that length."""
    rois = torch.tensor([[[0.0, 0.0, side, side]]])
    return RoIPicture(torch.zeros(3, 32, 32), rois, (torch.zeros(1, 2, 2), torch.tensor([points])), "one")


def part(axes: Axes, name: str) -> PolyCollection | PathCollection:
    """The collection of that name in a panel."""
    (found,) = [collection for collection in axes.collections if collection.get_gid() == name]
    return found


def boxes_by_colour(axes: Axes) -> dict[tuple[float, ...], np.ndarray]:
    """Each box of a panel as (x1, y1, x2, y2) in pixels, by its colour."""
    boxes = part(axes, "rois")
    corners = [path.vertices for path in boxes.get_paths()]
    return {
        tuple(colour[:3].round(6)): np.concatenate([corner.min(axis=0), corner.max(axis=0)])
        for colour, corner in zip(boxes.get_edgecolor(), corners, strict=True)
    }


def check_boxes(axes: Axes, rois: Tensor, *, width: int = 60, height: int = 40) -> None:
    """Each RoI of N x 4 has its box in a panel, in the colour of its token."""
    expected = {tuple(colour.round(6)): roi for colour, roi in zip(token_colours(len(rois)), rois, strict=True)}
    boxes = boxes_by_colour(axes)
    assert boxes.keys() == expected.keys()
    for colour, roi in expected.items():
        np.testing.assert_allclose(boxes[colour], roi.numpy() * [width, height, width, height], atol=1e-4)


def headings(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]
