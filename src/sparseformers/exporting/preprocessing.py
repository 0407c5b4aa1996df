"""The preprocessing of files that take images as they are decoded: bytes, of any size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sparseformers.config import PreprocessingConfig
from sparseformers.exporting.resampling import resample, resampling_matrix


class Preprocessing(nn.Module):
    """Resize and central crop of bytes, as :func:`sparseformers.data.evaluation_view` does them with Pillow.

    Pillow's rounding of bytes after each of its two passes is there too, so nearly all values are the same; few differ by a
    level or two, where a sum lies in the middle of two. Pixels that the crop leaves out are never computed. Two things differ:
    images of more than twenty shorter sides may be shifted by a pixel, and where the aspect ratio changes (squash), recent
    versions of Pillow choose the order of the two passes by the sizes, which moves a few values by up to 16 levels.

    Args:
        config: the student's.
    """

    def __init__(self, config: PreprocessingConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: Tensor) -> Tensor:
        """B x H x W x 3 bytes, red-green-blue, any H and W -> B x 3 x height x width in [0, 1]."""
        height, width = self.config.size
        resized_height, resized_width = self._resized(images.shape[1], images.shape[2])
        rows = resampling_matrix(
            images.shape[1], resized_height, self.config.interpolation, kept=height, first=_centred(resized_height, height)
        )
        columns = resampling_matrix(
            images.shape[2], resized_width, self.config.interpolation, kept=width, first=_centred(resized_width, width)
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
    """Where the central ``kept`` pixels of ``resized`` begin; halves are rounded to even, as torchvision does."""
    spare = resized - kept
    return (spare + spare.div(2, rounding_mode="floor") % 2).div(2, rounding_mode="floor")
