"""``view``: from models and images to a page that is being served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparseformers.viewer.config import ViewConfig

if TYPE_CHECKING:
    from sparseformers.viewer.server import Page


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

    The options are those of :class:`ViewConfig`; by default any free port is taken. Raises MissingExtraError without the extra
    ``view``, and another SparseFormersError if a model cannot be loaded, a folder holds no images, or no port is free.
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
