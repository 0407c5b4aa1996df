"""``view``: from models and images to a page that is being served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sparseformers.errors import ConfigError

if TYPE_CHECKING:
    from sparseformers.viewer.server import Page

MOST_MEGAPIXELS = 178
"""Pillow decodes no larger images."""


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Which models and images the page shows, and how much it takes; the options of the command."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run folder, a model file, a file that the authors released (.pth), or a released model's name, such as sf_base_augreg."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES...")] = ()
    """Images, or folders of them, to choose from in the page. Others can be dropped there."""

    beside: str | None = None
    """A second model, to compare: named as the first one is. Both show the same image, by the same slider."""
    teacher: str | None = None
    """Where to load the teacher from, if not from where it was when the model was made: timm:NAME, timm:NAME@FILE,
    open_clip:ARCH/TAG, hf:REPO or bundled. Without a teacher the page leaves out its attention, and says why."""
    neighbours: Path | None = None
    """A folder of images, in which to look for the nearest neighbours of the one that is shown."""
    port: int = 7007
    """On 127.0.0.1; if it is in use the next free one is taken. 0 takes any free one."""
    upload_megabytes: float = 32.0
    """The largest file that can be dropped on the page, in megabytes (1,000,000 bytes)."""
    megapixels: float = 150.0
    """The largest image that is decoded, in millions of pixels."""
    uploads_kept: int = 24
    """Dropped images that are kept, in memory; the oldest makes room for a new one."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must be from 0 to 65535, not {self.port}.", "Use 7007, for example.")
        if not self.upload_megabytes > 0:
            raise ConfigError(f"--upload-megabytes must be above 0, not {self.upload_megabytes}.", "Use 32, for example.")
        if not 0 < self.megapixels <= MOST_MEGAPIXELS:
            raise ConfigError(
                f"--megapixels must be above 0 and at most {MOST_MEGAPIXELS}, not {self.megapixels}.", "Use 150, for example."
            )
        if self.uploads_kept < 1:
            raise ConfigError(f"--uploads-kept must be at least 1, not {self.uploads_kept}.", "Use 24, for example.")

    @property
    def most_bytes(self) -> int:
        """The size of a dropped file, at most."""
        return int(self.upload_megabytes * 1_000_000)

    @property
    def most_pixels(self) -> int:
        """Height times width of an image, at most."""
        return int(self.megapixels * 1_000_000)


def view(
    run: str | Path,
    images: str | Path | Sequence[str | Path] = (),
    *,
    beside: str | Path | None = None,
    teacher: str | None = None,
    neighbours: str | Path | None = None,
    port: int = 0,
    upload_megabytes: float = 32.0,
    megapixels: float = 150.0,
    uploads_kept: int = 24,
) -> Page:
    """Serves the page of ``sparseformers view`` from a thread; at the end of a notebook's cell it shows itself.

    In a notebook::

        page = sparseformers.view("runs/first", ["photos"], beside="runs/second")
        page          # the page, in a frame
        page.url      # its address, for a browser on the same machine
        page.close()  # or: with sparseformers.view("runs/first") as page: ...

    Args:
        run: a run folder, a model file, a released file (.pth) or a released model's name.
        images: images and folders to choose from in the page.
        beside: a second model to compare with.
        teacher: where to load the teacher from, if not from where it was.
        neighbours: a folder in which to look for nearest neighbours.
        port: on 127.0.0.1; the next free one if it is in use, any free one for 0.
        upload_megabytes: the largest file that can be dropped on the page.
        megapixels: the largest image that is decoded, in millions of pixels.
        uploads_kept: dropped images that are kept in memory.

    Raises:
        MissingExtraError: without the extra ``view``.
        SparseFormersError: another one, if a model cannot be loaded, a folder holds no images, or there is no free port.
    """
    places = [images] if isinstance(images, str | Path) else images
    config = ViewConfig(
        run=str(run),
        images=tuple(Path(image) for image in places),
        beside=None if beside is None else str(beside),
        teacher=teacher,
        neighbours=None if neighbours is None else Path(neighbours),
        port=port,
        upload_megabytes=upload_megabytes,
        megapixels=megapixels,
        uploads_kept=uploads_kept,
    )
    return serve(config, framed=True)


def serve(config: ViewConfig, *, framed: bool) -> Page:
    """Loads what a page shows and serves it; ``framed`` allows notebooks on this machine to show it."""
    from sparseformers.viewer.server import Page, require_extra
    from sparseformers.viewer.session import Session

    require_extra()  # before models are loaded for nothing
    return Page(Session(config), port=config.port, framed=framed)
