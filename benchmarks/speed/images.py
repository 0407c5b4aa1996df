"""The images that models are timed, compared and calibrated on."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.exporting import ExportConfig
from sparseformers.exporting.check import find_photographs, views

COMPARED = 32
"""Photographs to take the cosine over."""
COMPARED_NOISE = 8
"""Images of noise to take it over, which are much alike."""
CALIBRATION = 128
"""Other photographs to calibrate int8 on; a quarter of it where they are noise."""
CALIBRATION_BATCH = 16
"""Images of calibration at a time."""


class Images:
    """Photographs as each model takes them; images of noise where there are none.

    Args:
        folder: where photographs are; None for noise.

    Raises:
        DataError: if they cannot be read.
    """

    def __init__(self, folder: Path | None) -> None:
        self._compared: list[Image.Image] = []
        self._calibration: list[Image.Image] = []
        if folder is not None:
            wanted = ExportConfig(
                format="onnx", precision="int8", data=(folder,), images=COMPARED, calibration_images=CALIBRATION
            )
            found = find_photographs(wanted, None)
            self._compared, self._calibration = [*found.for_check], [*found.for_calibration]

    @property
    def are_photographs(self) -> bool:
        """Whether they are not noise."""
        return bool(self._compared)

    def __str__(self) -> str:
        return f"{len(self._compared)} photographs" if self.are_photographs else f"{COMPARED_NOISE} images of noise"

    def compared(self, preprocessing: PreprocessingConfig) -> Tensor:
        """The images that the cosine is taken over as a model takes them, N x 3 x H x W in [0, 1]."""
        return views(self._compared, preprocessing) if self._compared else self.noise(preprocessing, COMPARED_NOISE)

    def batch(self, preprocessing: PreprocessingConfig, count: int) -> Tensor:
        """So many of them; where there are fewer, some come again."""
        images = self.compared(preprocessing)
        return images[torch.arange(count) % len(images)].contiguous()

    def calibration(self, preprocessing: PreprocessingConfig) -> tuple[Tensor, ...]:
        """Batches of other images as a model takes them."""
        if self._calibration:
            return views(self._calibration, preprocessing).split(CALIBRATION_BATCH)
        return self.noise(preprocessing, CALIBRATION // 4, seed=1).split(CALIBRATION_BATCH)

    def noise(self, preprocessing: PreprocessingConfig, count: int, *, seed: int = 0) -> Tensor:
        """Images of noise."""
        return torch.rand(count, 3, *preprocessing.size, generator=torch.Generator().manual_seed(seed))
