"""``view``: from models and images to a page that is being served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparseformers.viewer.config import ViewConfig
from sparseformers.viewer.server import Page, require_extra
from sparseformers.viewer.session import Session


def view(
    run: str | Path,
    images: Sequence[str | Path] = (),
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
    config = ViewConfig(
        run=str(run),
        images=tuple(Path(image) for image in images),
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
    require_extra()  # before models are loaded for nothing
    return Page(Session(config), port=config.port, framed=framed)
