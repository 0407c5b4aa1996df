"""From a network to a program that any batch and size can be put through, or only those that were asked for."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from sparseformers.exporting.config import ExportConfig
from sparseformers.model.sparseformer import SMALLEST_SIDE

LONGEST_SIDE = 65_536
"""Pixels; the whole numbers inside of a resize stay exact up to there."""


def trace(network: torch.nn.Module, settings: ExportConfig, size: tuple[int, int]) -> ExportedProgram:
    """The program of a network.

    Args:
        network: from images to embeddings.
        settings: which sizes are to be any.
        size: height and width of the images to trace it with, where any will do.
    """
    height, width = settings.height_and_width or (size[0], size[1] + 16)  # unlike sides, so that none is taken for the other
    batch = 2 if settings.batch == "dynamic" else settings.batch
    sides = (1, 2) if settings.with_preprocessing else (2, 3)
    dynamic: dict[int, Dim] = {}
    if settings.batch == "dynamic":
        dynamic[0] = Dim("batch", min=1)
    if settings.height_and_width is None:
        least = 1 if settings.with_preprocessing else SMALLEST_SIDE
        dynamic |= {sides[0]: Dim("height", min=least, max=LONGEST_SIDE), sides[1]: Dim("width", min=least, max=LONGEST_SIDE)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about itself
        return torch.export.export(network, (example(settings, batch, height, width),), dynamic_shapes={"images": dynamic})


def example(settings: ExportConfig, batch: int, height: int, width: int) -> Tensor:
    """Images of the kind that the file takes, all black."""
    if settings.with_preprocessing:
        return torch.zeros(batch, height, width, 3, dtype=torch.uint8)
    return torch.zeros(batch, 3, height, width)
