"""All settings of an embedding; the command line and the documentation come from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from sparseformers.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Model, images, and what is kept of each image."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_MODEL")]
    """A run folder, a model file, a teacher (timm:NAME, timm:NAME@FILE, open_clip:ARCH/TAG, hf:REPO, bundled), or a model that
    the authors released, such as sf_base_augreg."""
    data: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA...")]
    """Folders of images, and tar shards by brace pattern in quotes: 'shards/{00000..00127}.tar'. File names in the output are
    relative to the folder, or to the folder that several of them share; in shards it is shard.tar/key.jpg."""

    dtype: Literal["float16", "float32"] = "float16"
    """Number format of embeddings and tokens."""
    tokens: bool = False
    """Keep the final tokens, too: of a student all that leave the last norm (class token, registers, latent tokens), of a teacher
    its patch tokens."""
    rois: bool = False
    """Keep the last region of interest of each latent token, too: (x1, y1, x2, y2) in [0, 1] of the central view, float32."""
    image_size: int | None = None
    """For a teacher: side in pixels of the images that it sees, its own by default. A student has the one that it was made at."""
    crop: float | None = None
    """For a teacher: share of the shorter side that the central crop keeps, its own by default."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the matrix products; auto measures which one this machine is faster in."""
    batch_size: int = 32
    """Images at a time."""
    part_images: int = 1024
    """Images between two points to go on from after a stop; rows of a row group, and of a file in a folder."""
    workers: int | None = None
    """Processes that read images; chosen from the processor's cores by default."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("image-size", self.image_size, 32),
            ("batch-size", self.batch_size, 1),
            ("part-images", self.part_images, 1),
            ("workers", self.workers, 0),
        ):
            if value is not None and value < least:
                raise ConfigError(f"--{name} must be at least {least}, not {value}.", f"Use {least} or more.")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise ConfigError(f"--crop must be in (0, 1], not {self.crop}.", "Use 0.875, for example.")
        if not self.data:
            raise ConfigError("Nothing to embed was given.", "Name a folder of images, or tar shards, after the model.")
