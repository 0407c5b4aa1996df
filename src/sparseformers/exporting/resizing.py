"""Resizing as two products with matrices, which every format has, and the same in all of them.

Antialiased resizing is no such thing: OpenVINO reads ONNX's and silently computes another one, and has no rule for PyTorch's.
A resize is linear and separable, so it is two matrices that are computed from the sizes, inside the file where these vary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from sparseformers.config import PreprocessingConfig

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos"]


def bilinear(distance: Tensor) -> Tensor:
    """The triangle, of support 1."""
    return (1 - distance).clamp(min=0)


def bicubic(distance: Tensor) -> Tensor:
    """Keys' cubic of support 2 with a = -0.5, as Pillow has it (Keys, 1981)."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))


def lanczos(distance: Tensor) -> Tensor:
    """The windowed sine of support 3 (Duchon, 1979)."""
    angle = math.pi * distance.clamp(min=1e-6)  # sin(x) / x is 1 there in float32
    windowed = 3 * angle.sin() * (angle / 3).sin() / (angle * angle)
    return torch.where(distance < 3, windowed, torch.zeros_like(windowed))


FILTERS: Mapping[str, Callable[[Tensor], Tensor]] = {"bilinear": bilinear, "bicubic": bicubic, "lanczos": lanczos}
"""Weight by distance, in pixels of the coarser of the two images; even functions, given for distances from 0 up."""


def resampling_matrix(size: int, resized: int | Tensor, filter_: Filter, *, kept: int, first: int | Tensor = 0) -> Tensor:
    """The matrix that turns a line of pixels into a resized one: antialiased, by the convention of Pillow and of PyTorch.

    A line of ``size`` pixels (a symbol where the file takes any) becomes one of ``resized`` pixels (an integer, or an int64
    tensor of no dimensions), of which ``kept`` from ``first`` on are wanted. The filter says which pixels count how much;
    ``nearest`` takes one. Returns ``kept`` x ``size``, float32; each row sums to 1.
    """
    resized = torch.as_tensor(resized, dtype=torch.int64)
    target = 2 * (torch.arange(kept) + first).unsqueeze(1) + 1  # middles, in half pixels
    if filter_ == "nearest":
        return (torch.arange(size) == (target * size).div(2 * resized, rounding_mode="floor")).float()
    source = 2 * torch.arange(size) + 1
    # Exact up to here: whole numbers in units of 1 / (2 resized) of a pixel.
    apart = (source * resized - target * size).abs()
    coarser = torch.maximum(resized, torch.full_like(resized, size))
    weights = FILTERS[filter_](apart.float() / (2 * coarser).float())
    return weights / weights.sum(dim=1, keepdim=True)


def resample(images: Tensor, rows: Tensor, columns: Tensor, *, to_levels: bool = False) -> Tensor:
    """Images B x C x H x W by matrices to B x C x H_out x W_out; ``to_levels`` rounds after each, as Pillow does with bytes."""
    images = images @ columns.T
    if to_levels:
        images = whole_levels(images)
    images = rows @ images
    return whole_levels(images) if to_levels else images


def whole_levels(images: Tensor) -> Tensor:
    """Values rounded to whole ones in 0 ... 255, halves upwards."""
    return (images + 0.5).floor().clamp(0, 255)


class Preprocessing(nn.Module):
    """Resize and central crop of bytes, as :func:`sparseformers.data.evaluation_view` does them with Pillow.

    Pillow's rounding of bytes after each of its two passes is there too, so nearly all values are the same; few differ by a
    level or two, where a sum lies in the middle of two. Pixels that the crop leaves out are never computed. Two things differ:
    images of more than twenty shorter sides may be shifted by a pixel, and where the aspect ratio changes (squash), recent
    versions of Pillow choose the order of the two passes by the sizes, which moves a few values by up to 16 levels.
    """

    def __init__(self, config: PreprocessingConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: Tensor) -> Tensor:
        """B x H x W x 3 bytes, red-green-blue, any H and W -> B x 3 x height x width in [0, 1]."""
        sizes = zip(images.shape[1:3], self._resized(images.shape[1], images.shape[2]), self.config.size, strict=True)
        rows, columns = (
            resampling_matrix(size, resized, self.config.interpolation, kept=kept, first=_centred(resized, kept))
            for size, resized, kept in sizes
        )
        return resample(images.permute(0, 3, 1, 2).float(), rows, columns, to_levels=True) / 255

    def _resized(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Height and width of the resized image before the crop: int64 of no dimensions, by timm's rounding."""
        to_height, to_width = (math.floor(side / self.config.crop) for side in self.config.size)
        goal = torch.tensor(to_height), torch.tensor(to_width)
        if self.config.resize == "squash":
            return goal
        tall, wide = torch.full((), height), torch.full((), width)
        if to_height == to_width:  # the longer side is rounded down
            return (
                torch.maximum(goal[0], (to_height * tall).div(wide, rounding_mode="floor")),
                torch.maximum(goal[1], (to_width * wide).div(tall, rounding_mode="floor")),
            )
        # The side that needs the least shrinking gets its goal, the other one what it is by the same ratio.
        by_height = tall * to_width <= wide * to_height
        over, under = torch.where(by_height, tall, wide), torch.where(by_height, goal[0], goal[1])
        return _rounded_quotient(tall * under, over), _rounded_quotient(wide * under, over)


def _rounded_quotient(dividend: Tensor, divisor: Tensor) -> Tensor:
    """The quotient of positive whole numbers, rounded to the nearest; halves to even, as Python does."""
    quotient = (2 * dividend + divisor).div(2 * divisor, rounding_mode="floor")
    is_half = 2 * divisor * quotient == 2 * dividend + divisor
    return quotient - torch.where(is_half, quotient % 2, torch.zeros_like(quotient))


def _centred(resized: Tensor, kept: int) -> Tensor:
    """The first of the central ``kept`` pixels of ``resized``; halves are rounded to even, as torchvision does."""
    spare = resized - kept
    return (spare + spare.div(2, rounding_mode="floor") % 2).div(2, rounding_mode="floor")
