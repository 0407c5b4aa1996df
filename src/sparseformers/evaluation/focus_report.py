"""What is reported of where a student looks.

Legend: M images. Lengths are in units of the image's sides, shares are in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table
from torch import Tensor

from sparseformers.settings import to_dict


@dataclass(frozen=True)
class Spread:
    """A figure over images, each counted once."""

    mean: float
    """Over the images."""
    std: float
    """Standard deviation between images (not of the mean); 0 for a single one."""

    @classmethod
    def of(cls, values: Tensor) -> Spread:
        """Of M values, at least one."""
        exact = values.double()
        return cls(exact.mean().item(), exact.std(correction=0).item())


@dataclass(frozen=True)
class ForegroundFigures:
    """How the sampling points of one look fall on the foreground."""

    points: Spread
    """Share of the sampling points that fall on the foreground."""
    ratio: Spread
    """That share over the foreground's share of the area: 1 means no focus, as with points that are spread evenly."""
    elsewhere: float | None
    """Share of the points that fall on the foregrounds of the other images, on average: what places that know nothing of the
    image score where objects lie in the middle; None for a single image."""


@dataclass(frozen=True)
class StageFigures:
    """The RoIs of one stage, and the look that reads the image in them."""

    stage: int
    """0 for the start, i for after the i-th focusing iteration."""
    moved: Spread | None
    """How far the centres of RoIs moved since the stage before; None at the start."""
    from_start: Spread
    """How far they are from where they were at the start."""
    size: Spread
    """Side of a RoI: the root of its area."""
    rois_cover: Spread
    """Share of the image that lies in at least one RoI."""
    overlap: Spread
    """Share of the RoIs' area that is not new: 1 - union / sum of areas; 0 where they share nothing."""
    points_cover: Spread | None
    """Share of the image in the neighbourhood of at least one sampling point; None where nothing reads in these RoIs."""
    foreground: ForegroundFigures | None
    """Of the sampling points; None where nothing is known of foregrounds, or nothing reads in these RoIs."""


@dataclass(frozen=True)
class FocusReport:
    """Where a student looks, in numbers."""

    tokens: int
    """N, latent tokens."""
    points: int
    """P, sampling points of each token; 0 if there are none."""
    stages: tuple[StageFigures, ...]
    """From the start to the end."""
    images: int
    """M."""
    skipped: int
    """Images that could not be read; no figure counts them."""
    area: Spread | None
    """Share of the view that is foreground; None where nothing is known of it."""
    annotated: int
    """Images that the figures of the foreground are of."""
    not_annotated: tuple[str, ...]
    """Readable images of which no foreground is known; other figures count them."""
    out_of_view: tuple[str, ...]
    """Images with a known foreground of which the network's view holds nothing; figures of the foreground leave them out."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return to_dict(self)


def focus_table(report: FocusReport, title: str) -> Table:
    """A line for each stage; each figure with its standard deviation between images."""
    caption = f"{report.tokens} tokens, {report.points} points each; {report.images} images"
    caption += f", {report.skipped} unreadable skipped" if report.skipped else ""
    caption += "; mean ± standard deviation between images, lengths in sides of the image"
    headers = ["stage", "RoIs moved", "from start", "their side", "RoIs cover", "overlap", "points cover"]
    if report.area is not None:
        headers += ["points on\nforeground", "over its\narea", "on that of\nother images"]
        caption += f"\nforeground: {_share(report.area)} of the view, {report.annotated} images"
    table = Table(title=title, caption=caption)
    for header in headers:
        table.add_column(header, justify="left" if header == "stage" else "right", no_wrap=True)
    for figures in report.stages:
        cells = [_length(figures.moved), _length(figures.from_start), _length(figures.size)]
        cells += [_share(figures.rois_cover), _share(figures.overlap), _share(figures.points_cover)]
        if report.area is not None:
            cells += _foreground_cells(figures.foreground)
        table.add_row("start" if figures.stage == 0 else f"iteration {figures.stage}", *cells)
    return table


def _foreground_cells(figures: ForegroundFigures | None) -> list[str]:
    if figures is None:
        return ["", "", ""]
    ratio = f"{figures.ratio.mean:.2f} ± {figures.ratio.std:.2f}"
    return [_share(figures.points), ratio, "" if figures.elsewhere is None else f"{figures.elsewhere:.1%}"]


def _length(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.mean:.3f} ± {spread.std:.3f}"


def _share(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.mean:.1%} ± {spread.std * 100:.1f}"
