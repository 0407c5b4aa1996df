"""All settings of an embedding; the command line and the documentation come from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from sparseformers.errors import ConfigError
from sparseformers.settings import AtLeast, Between, ImageSize, check_bounds
from sparseformers.train.settings import SIZE


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
    dense: bool = False
    """Keep the map of features, too, one row of D numbers for each place of the teacher's grid: of a student trained with --dense
    what its read-out gives, of a teacher its patch tokens."""
    rois: bool = False
    """Keep the last region of interest of each latent token, too: (x1, y1, x2, y2) in [0, 1] of the central view, float32."""
    image_size: Annotated[ImageSize | None, SIZE, AtLeast(32)] = None
    """For a teacher: side in pixels of the images that it sees, or height x width (256x128), its own by default. A student has
    the one that it was made at."""
    crop: Annotated[float | None, Between(0, 1, "(]", example=0.875)] = None
    """For a teacher: share of the shorter side that the central crop keeps, its own by default."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the matrix products; auto measures which one this machine is faster in."""
    batch_size: Annotated[int, AtLeast(1)] = 32
    """Images at a time."""
    part_images: Annotated[int, AtLeast(1)] = 1024
    """Images between two points to go on from after a stop; rows of a row group, and of a file in a folder."""
    workers: Annotated[int | None, AtLeast(0)] = None
    """Processes that read images; chosen from the processor's cores by default."""

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.data:
            raise ConfigError("Nothing to embed was given.", "Name a folder of images, or tar shards, after the model.")
