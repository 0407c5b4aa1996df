"""Settings of packing images into shards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sparseformers.data.images import MOST_PIXELS, PILLOWS_MOST_PIXELS
from sparseformers.errors import ConfigError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
SMALLEST_SHARD = 10_000
"""Bytes; a smaller one would be more headers than images."""


@dataclass(frozen=True)
class PackConfig:
    """Which images to put into shards, and how."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="dir", metavar="DIR")]
    """A folder of images, searched recursively; their paths from there on become their names in the shards."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The folder to make: 000000.tar and so on, beside each an index, manifest.json, and skipped_images.txt."""
    shard_size: str = "256MB"
    """Bytes of a shard, such as 256MB or 1GiB; the last one is smaller, and one with a single large image larger."""
    resize: int | None = None
    """Pixels to shrink the shorter side to; smaller images stay what they are. By default all files are taken as they are."""
    quality: int = 92
    """JPEG quality of images that are shrunk, in [1, 95]."""
    seed: int = 0
    """Of the order: images are shuffled, so that a shard has images from everywhere."""
    keep_order: bool = False
    """Take images in the order of their names instead."""
    max_pixels: int = MOST_PIXELS
    """Images of more pixels are skipped."""
    workers: int | None = None
    """Threads that read and shrink images; chosen from the processor's cores by default."""

    def __post_init__(self) -> None:
        if self.shard_bytes < SMALLEST_SHARD:
            raise ConfigError(f"--shard-size must be at least {SMALLEST_SHARD} bytes, not {self.shard_size}.", "Use 256MB.")
        if self.resize is not None and self.resize < 1:
            raise ConfigError(f"--resize must be at least 1, not {self.resize}.", "Use 256, for example.")
        if not 1 <= self.quality <= 95:
            raise ConfigError(f"--quality must be in [1, 95], not {self.quality}.", "Use 92, for example.")
        if not 1 <= self.max_pixels <= PILLOWS_MOST_PIXELS:
            raise ConfigError(
                f"--max-pixels must be in [1, {PILLOWS_MOST_PIXELS}], not {self.max_pixels}.", f"Use {MOST_PIXELS}, for example."
            )
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers must be at least 1, not {self.workers}.", "Use 1 or more.")

    @property
    def shard_bytes(self) -> int:
        """``shard_size`` in bytes.

        Raises:
            ConfigError: if it cannot be understood.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", self.shard_size.strip().lower())
        if match is None or match[2].upper() not in UNITS:
            raise ConfigError(f"The size '{self.shard_size}' cannot be understood.", "Write 256MB, 1GiB or a number of bytes.")
        return int(float(match[1]) * UNITS[match[2].upper()])

    def what(self) -> dict[str, object]:
        """The settings that the shards depend on, by their flags."""
        return {
            "--shard-size": self.shard_bytes,
            "--resize": self.resize,
            "--quality": None if self.resize is None else self.quality,
            "--seed": None if self.keep_order else self.seed,
            "--keep-order": self.keep_order,
            "--max-pixels": self.max_pixels,
        }
