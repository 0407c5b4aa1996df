"""The settings of ``view``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sparseformers.settings import Above, AtLeast, Between, check_bounds

MOST_MEGAPIXELS = 178  # Pillow decodes no larger images


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Models and images that the page shows, and how much it takes; the options of the command."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run folder, a model file, a file that the authors released (.pth), or a released model's name, such as sf_base_augreg."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES...")] = ()
    """Images, or folders of them, to choose from in the page. Others can be dropped there."""

    beside: str | None = None
    """A second model, to compare: named as the first one is. Both show the same image, by the same slider."""
    teacher: str | None = None
    """The teacher to load, if it is not where it was when the model was made: timm:NAME, timm:NAME@FILE,
    open_clip:ARCH/TAG, hf:REPO or bundled. Without a teacher the page leaves out its attention, and says why."""
    neighbours: Path | None = None
    """A folder of images, in which to look for the nearest neighbours of the one that is shown."""
    port: Annotated[int, Between(0, 65535, example=7007)] = 7007
    """On 127.0.0.1; if it is in use the next free one is taken. 0 takes any free one."""
    upload_megabytes: Annotated[float, Above(0)] = 32.0
    """The largest file that can be dropped on the page, in megabytes (1,000,000 bytes)."""
    megapixels: Annotated[float, Between(0, MOST_MEGAPIXELS, "(]", example=150)] = 150.0
    """The largest image that is decoded, in millions of pixels."""
    uploads_kept: Annotated[int, AtLeast(1)] = 24
    """Dropped images that are kept, in memory; the oldest makes room for a new one."""

    def __post_init__(self) -> None:
        check_bounds(self)

    @property
    def most_bytes(self) -> int:
        return int(self.upload_megabytes * 1_000_000)

    @property
    def most_pixels(self) -> int:
        return int(self.megapixels * 1_000_000)
