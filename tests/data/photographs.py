"""Photographs that the tests of decoding make up."""

import numpy as np
from PIL import Image


def photograph(width: int = 48, height: int = 32) -> Image.Image:
    """Smooth and different everywhere, so that JPEG keeps it and every turn of it shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x / 2 - y / 2], axis=-1).round().astype(np.uint8))


def pixels(image: Image.Image) -> np.ndarray:
    """Its values, in integers that can be negative in a difference."""
    return np.asarray(image).astype(int)
