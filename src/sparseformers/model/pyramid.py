"""The image at several resolutions, so that a patch of any RoI is read without aliasing."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic

COARSER, FINER = 1, 1
"""Octaves above and below the resolution of the cells that the pyramid has."""


class Patches(NamedTuple):
    """What was read inside RoIs."""

    pixels: Tensor
    """B x N x 3 x P x P."""
    points: Tensor
    """B x N x P² x 2, where each pixel lies, (x, y) in [0, 1] of the image."""


class ImagePyramid(nn.Module):
    """Reads a patch of P x P pixels inside each RoI, at the resolution that the RoI's size calls for.

    The base level has just so many pixels that a cell of the coarse grid is a patch; a RoI of the size of a cell is read
    there, one of half the size an octave finer, and sizes between from both (Williams, "Pyramidal parametrics", 1983).
    RoIs beyond the pyramid's ends are read at its ends.

    Args:
        patch_size: P.
    """

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def levels(self, images: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """Images B x 3 x H x W and the coarse grid's rows and columns -> one B x 3 x h x w per octave, coarse to fine."""
        return [self.level(images, grid, octave) for octave in range(-COARSER, FINER + 1)]

    def level(self, images: Tensor, grid: tuple[int, int], octave: int = 0) -> Tensor:
        """One of them: B x 3 x H x W -> B x 3 x h x w; at octave 0 h and w are as many patches as the grid has cells."""
        height, width = (round(cells * self.patch_size * 2.0**octave) for cells in grid)
        return self.resized(images.float(), (height, width))

    def resized(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Images B x 3 x H x W at another height and width, bilinear and antialiased."""
        return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)

    def forward(self, levels: list[Tensor], rois: Tensor) -> Patches:
        """Levels and RoIs B x N x 4 -> the patches inside of them, differentiable in the RoIs' sides."""
        points = roi_arithmetic.regular_points(rois, self.patch_size)  # B x N x P² x 2
        octave = octave_of(rois)[:, None, :, None]  # B x 1 x N x 1
        grid = 2 * points - 1
        pixels = torch.zeros((), device=grid.device)
        for level, own in zip(levels, range(-COARSER, FINER + 1), strict=True):
            share = (1 - (octave - own).abs()).clamp(min=0)
            read = F.grid_sample(level, grid, mode="bilinear", padding_mode="border", align_corners=False)  # B x 3 x N x P²
            pixels = pixels + share * read
        return Patches(pixels.transpose(1, 2).unflatten(-1, (self.patch_size, self.patch_size)), points)

    def cells(self, base: Tensor, rois: Tensor) -> Patches:
        """What :meth:`forward` reads in the cells of a grid with rows of equal length: the base level, cut.

        Args:
            base: B x 3 x h x w, the level at octave 0.
            rois: B x N x 4, the cells.
        """
        patches = base.unflatten(2, (-1, self.patch_size)).unflatten(4, (-1, self.patch_size))
        pixels = patches.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # B x N x 3 x P x P
        return Patches(pixels, roi_arithmetic.regular_points(rois, self.patch_size))


def octave_of(rois: Tensor) -> Tensor:
    """How much finer than a cell, one of N that tile the image, each RoI is, in octaves of the pyramid: B x N x 4 -> B x N."""
    _, size = roi_arithmetic.centre_and_size(rois)
    cells = (size.prod(dim=-1) * rois.shape[-2]).clamp(min=1e-12)  # each RoI's area in cells
    # Without gradient: how fine to read is no reason to grow or shrink.
    return (-0.5 * cells.detach().log() / math.log(2)).clamp(-COARSER, FINER)
