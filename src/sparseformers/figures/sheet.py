"""A white sheet with titled rows of panels, each photograph in its own shape: what all figures of photographs have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from sparseformers.errors import ConfigError
from sparseformers.figures.panels import margin
from sparseformers.files import cut, printable

LARGEST_SHEET = 64  # pictures on a sheet, at most
INK, FAINT_INK, RULE = "#101014", "#404048", "#b8b8b8"  # colours of headings, of pictures' names, of rules under groups
LETTER = 0.08  # width of a letter of a picture's title, in inches

# All of these are in inches.
LONGEST_SIDE = 2.5  # the longer side of a panel
NARROWEST_CELL = 2.0  # room for the title of a column
GAP, BLOCK_GAP, CELL_GAP, ROW_GAP = 0.05, 0.4, 0.09, 0.05  # between panels, pictures, cells of a divided place, rows
ROW_TITLE, COLUMN_TITLE, GROUP_TITLE = 0.2, 0.3, 0.25  # heights of the titles of pictures, columns, groups
BORDER = 0.12  # around the sheet


class Sheet(NamedTuple):
    """A figure whose titles are written and whose panels are still empty."""

    figure: Figure  # white, bound to the Agg canvas: no display, no pyplot, no global state
    panels: list[list[Axes]]  # for each picture, its panels from left to right; each has the shape of the picture with its margin


def open_sheet(
    images: Sequence[Tensor],
    titles: Sequence[str],
    headings: Sequence[str],
    *,
    columns: int | None = None,
    groups: Sequence[tuple[str, int]] = (),
    caption: float = 0.0,
) -> Sheet:
    """Lays out a row of panels for each picture (3 x H x W of any shapes) and writes the titles.

    There is a heading for each panel of a row, once at the top of each block of rows; ``groups`` are names of neighbouring
    panels, each with how many they are, above their headings. ``columns`` is pictures side by side, by default as many as make
    the sheet about square, ``caption`` empty room under each panel, in inches. Raises ConfigError for no picture, more than 64,
    or less than one column.
    """
    check_count(len(images))
    if columns is not None and columns < 1:
        raise ConfigError(f"A sheet cannot have {columns} columns.", "Ask for one column or more.")
    sizes, columns = [panel_size(image) for image in images], columns or max(1, round(math.sqrt(len(images) / len(headings))))
    in_groups = [panels for _, panels in groups]
    layout = lay_out(sizes, panels=len(headings), columns=columns, groups=in_groups, caption=caption)
    figure = empty_figure(layout.width, layout.height)
    _write_headings(figure, layout, headings, [name for name, _ in groups])
    # The title of each picture above its panels, from the left edge of the first photograph on.
    for place, panels, image, title in zip(layout.row_titles, layout.panels, images, titles, strict=True):
        height, width = image.shape[-2:]
        at_photograph = place.left + panels[0].width * margin(width, height) / panel_size(image)[0]
        fitting = shorten_title(title, letters=int(place.width * layout.width / LETTER))
        write(figure, at_photograph, place, fitting, size=8, colour=FAINT_INK, align="left")
    return Sheet(figure, [[figure.add_axes(place) for place in places] for places in layout.panels])


def check_count(pictures: int) -> None:
    """Raises ConfigError unless that many pictures go on a sheet."""
    if pictures < 1:
        raise ConfigError("There is no picture to draw.", "Give at least one image.")
    if pictures > LARGEST_SHEET:
        raise ConfigError(f"{pictures} pictures are too many for one sheet.", f"Draw at most {LARGEST_SHEET} at a time.")


def empty_figure(width: float, height: float) -> Figure:
    """A white figure of that size in inches, bound to the Agg canvas."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def panel_size(image: Tensor) -> tuple[float, float]:
    """Width and height of a picture (3 x H x W) with its margin, in pixels."""
    height, width = image.shape[-2:]
    return width + 2 * margin(width, height), height + 2 * margin(width, height)


def write(figure: Figure, x: float, place: PanelPlace, text: str, *, size: float, colour: str, align: str) -> None:
    """One line at ``x``, halfway up ``place``; without mathtext, for a file name may hold dollar signs."""
    y = place.bottom + place.height / 2
    figure.text(x, y, text, fontsize=size, color=colour, ha=align, va="center", parse_math=False)


def write_under(axes: Axes, text: str, *, line: int = 0) -> None:
    """One small line in the room under a panel; ``line`` counts from 0 at the panel."""
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "xytext": (0, -1 - 9 * line), "annotation_clip": False}
    look = {"fontsize": 7.5, "color": FAINT_INK, "ha": "center", "va": "top", "parse_math": False}
    axes.annotate(text, (0.5, 0), gid="under", **place, **look)  # type: ignore[arg-type]


def shorten_title(title: str, *, letters: int) -> str:
    """A title on one line of at most that many letters; of a longer one the middle is left out."""
    return cut(printable(" ".join(title.split())), letters)  # a file name may hold bytes that no font has letters for


def _write_headings(figure: Figure, layout: Layout, headings: Sequence[str], groups: Sequence[str]) -> None:
    for names, places in ((headings, layout.column_titles), (groups, layout.group_titles)):
        for block in places:
            for place, name in zip(block, names, strict=True):
                fitting = shorten_title(name, letters=max(5, int(place.width * layout.width / LETTER)))
                write(figure, place.left + place.width / 2, place, fitting, size=9.5, colour=INK, align="center")
    for place in (place for block in layout.group_titles for place in block):
        figure.add_artist(Line2D([place.left, place.left + place.width], [place.bottom] * 2, color=RULE, linewidth=0.8))


class PanelPlace(NamedTuple):
    """A rectangle on the sheet, in shares of its width and height, from the bottom left as matplotlib counts."""

    left: float
    bottom: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """Places of everything on a sheet of this size in inches."""

    width: float
    height: float
    panels: tuple[tuple[PanelPlace, ...], ...]  # for each picture, its panels from left to right
    row_titles: tuple[PanelPlace, ...]  # for each picture, the strip above its panels
    column_titles: tuple[tuple[PanelPlace, ...], ...]  # for each block of panels side by side, the strips above its columns
    group_titles: tuple[tuple[PanelPlace, ...], ...]  # as column_titles, above groups of columns


def lay_out(
    sizes: Sequence[tuple[float, float]], *, panels: int, columns: int, groups: Sequence[int] = (), caption: float = 0.0
) -> Layout:
    """Places rows of ``panels`` for pictures (width, height), ``columns`` side by side; ``groups`` are counted from the right."""
    scaled = [(width * LONGEST_SIDE / max(width, height), height * LONGEST_SIDE / max(width, height)) for width, height in sizes]
    columns = min(columns, len(sizes))
    cell = max(NARROWEST_CELL, *(width for width, _ in scaled))
    block = panels * cell + (panels - 1) * GAP
    rows = [caption + max(height for _, height in scaled[start : start + columns]) for start in range(0, len(sizes), columns)]
    sheet_width = 2 * BORDER + columns * block + (columns - 1) * BLOCK_GAP
    head = COLUMN_TITLE + (GROUP_TITLE if groups else 0)
    sheet_height = 2 * BORDER + head + sum(rows) + len(rows) * (ROW_TITLE + ROW_GAP) - ROW_GAP

    def place(left: float, top: float, width: float, height: float) -> PanelPlace:
        """Inches from the top left, to shares from the bottom left."""
        bottom = sheet_height - top - height
        return PanelPlace(left / sheet_width, bottom / sheet_height, width / sheet_width, height / sheet_height)

    panel_places, row_titles = [], []
    top = BORDER + head
    for row, row_height in enumerate(rows):
        for column, (width, height) in enumerate(scaled[row * columns : (row + 1) * columns]):
            left = BORDER + column * (block + BLOCK_GAP)
            lefts = [left + panel * (cell + GAP) + (cell - width) / 2 for panel in range(panels)]
            panel_places.append(tuple(place(start, top + ROW_TITLE, width, height) for start in lefts))
            row_titles.append(place(lefts[0], top, block - (lefts[0] - left), ROW_TITLE))
        top += ROW_TITLE + row_height + ROW_GAP

    def strips(height: float, bottom: float, spans: Sequence[tuple[int, int]]) -> tuple[tuple[PanelPlace, ...], ...]:
        """For each block, strips over spans of its panels (the first one, and how many), that end at ``bottom``."""
        lefts = [BORDER + column * (block + BLOCK_GAP) for column in range(columns)]
        across = [(first * (cell + GAP), count * (cell + GAP) - GAP) for first, count in spans]
        return tuple(tuple(place(left + start, bottom - height, width, height) for start, width in across) for left in lefts)

    firsts = accumulate(groups, initial=panels - sum(groups))
    column_titles = strips(COLUMN_TITLE, BORDER + head, [(panel, 1) for panel in range(panels)])
    group_titles = strips(GROUP_TITLE, BORDER + GROUP_TITLE, list(zip(firsts, groups, strict=False)))
    return Layout(sheet_width, sheet_height, tuple(panel_places), tuple(row_titles), column_titles, group_titles)


def divide(place: PanelPlace, count: int, *, width: float, height: float, caption: float) -> list[PanelPlace]:
    """A place on a sheet of ``width`` x ``height`` inches as ``count`` equal cells, each with room for a ``caption`` under it."""
    wide, high = place.width * width, place.height * height

    def cell(rows: int) -> tuple[float, float]:
        columns = math.ceil(count / rows)
        return (wide - (columns - 1) * CELL_GAP) / columns, (high - (rows - 1) * (caption + CELL_GAP)) / rows

    rows = max(range(1, count + 1), key=lambda rows: min(cell(rows)))
    columns, (cell_width, cell_height) = math.ceil(count / rows), cell(rows)
    lefts = [place.left + column * (cell_width + CELL_GAP) / width for column in range(columns)]
    bottoms = [place.bottom + (high - cell_height - row * (cell_height + caption + CELL_GAP)) / height for row in range(rows)]
    corners = [(left, bottom) for bottom in bottoms for left in lefts][:count]
    return [PanelPlace(left, bottom, cell_width / width, cell_height / height) for left, bottom in corners]
