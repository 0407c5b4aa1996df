"""What all figures of photographs have in common: a white sheet with titled rows of panels, each photograph in its own shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from sparseformers.errors import ConfigError
from sparseformers.figures.layout import Place, Sheet, block_columns, lay_out
from sparseformers.figures.panels import margin
from sparseformers.files import printable

LARGEST_SHEET = 64
"""Pictures on a sheet, at most."""
INK, FAINT_INK = "#101014", "#404048"
"""Of headings and of the names of pictures."""
RULE = "#b8b8b8"
"""Of the line below the name of a group."""
LETTER = 0.08
"""Width of a letter of a picture's title, in inches."""


class OpenSheet(NamedTuple):
    """A figure whose titles are written and whose panels are still empty."""

    figure: Figure
    """White, bound to the Agg canvas: no display, no pyplot, no global state."""
    panels: list[list[Axes]]
    """For each picture, its panels from left to right; each has the shape of the picture with its margin."""


def open_sheet(
    images: Sequence[Tensor],
    titles: Sequence[str],
    headings: Sequence[str],
    *,
    columns: int | None = None,
    groups: Sequence[tuple[str, int]] = (),
    caption: float = 0.0,
) -> OpenSheet:
    """Lays out a row of panels for each picture and writes the titles.

    Args:
        images: 1 to 64 of 3 x H x W, of any shapes.
        titles: of the pictures, one each; written above their rows.
        headings: one per panel of a row; written once at the top of each block of rows.
        columns: pictures side by side; by default as many as make the sheet about square.
        groups: names of neighbouring panels, each with how many they are; written above their headings.
        caption: room under each panel, in inches, left empty.

    Raises:
        ConfigError: for no picture, more than 64, or less than one column.
    """
    check_count(len(images))
    if columns is not None and columns < 1:
        raise ConfigError(f"A sheet cannot have {columns} columns.", "Ask for one column or more.")
    sheet = lay_out(
        [panel_size(image) for image in images],
        panels=len(headings),
        columns=columns or block_columns(len(images), len(headings)),
        groups=[panels for _, panels in groups],
        caption=caption,
    )
    figure = empty_figure(sheet.width, sheet.height)
    _write_headings(figure, sheet, headings, [name for name, _ in groups])
    _write_row_titles(figure, sheet, images, titles)
    return OpenSheet(figure, [[figure.add_axes(place) for place in places] for places in sheet.panels])


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


def write(figure: Figure, x: float, place: Place, text: str, *, size: float, colour: str, align: str) -> None:
    """One line at ``x``, halfway up ``place``; without mathtext, for a file name may hold dollar signs."""
    y = place.bottom + place.height / 2
    figure.text(x, y, text, fontsize=size, color=colour, ha=align, va="center", parse_math=False)


def write_under(axes: Axes, text: str, *, line: int = 0) -> None:
    """One small line in the room under a panel; ``line`` counts from 0 at the panel."""
    axes.annotate(
        text,
        (0.5, 0),
        xycoords="axes fraction",
        xytext=(0, -1 - 9 * line),
        textcoords="offset points",
        fontsize=7.5,
        color=FAINT_INK,
        ha="center",
        va="top",
        annotation_clip=False,
        gid="under",
        parse_math=False,
    )


def shorten_title(title: str, *, letters: int) -> str:
    """A title on one line of at most that many letters; of a longer one the middle is left out."""
    title = printable(" ".join(title.split()))  # a file name may hold bytes that no font has letters for
    if len(title) <= letters:
        return title
    head = (letters - 1) // 2
    return f"{title[:head]}…{title[len(title) - (letters - 1 - head) :]}"


def _write_headings(figure: Figure, sheet: Sheet, headings: Sequence[str], groups: Sequence[str]) -> None:
    """The headings once at the top of each block, with those of groups above them."""
    for names, places in ((headings, sheet.column_titles), (groups, sheet.group_titles)):
        for block in places:
            for place, name in zip(block, names, strict=True):
                fitting = shorten_title(name, letters=max(5, int(place.width * sheet.width / LETTER)))
                write(figure, place.left + place.width / 2, place, fitting, size=9.5, colour=INK, align="center")
    for place in (place for block in sheet.group_titles for place in block):
        rule = Line2D([place.left, place.left + place.width], [place.bottom] * 2, color=RULE, linewidth=0.8)
        figure.add_artist(rule)


def _write_row_titles(figure: Figure, sheet: Sheet, images: Sequence[Tensor], titles: Sequence[str]) -> None:
    """The title of each picture above its panels, from the left edge of the first photograph on."""
    for place, panels, image, title in zip(sheet.row_titles, sheet.panels, images, titles, strict=True):
        height, width = image.shape[-2:]
        at_photograph = place.left + panels[0].width * margin(width, height) / panel_size(image)[0]
        fitting = shorten_title(title, letters=int(place.width * sheet.width / LETTER))
        write(figure, at_photograph, place, fitting, size=8, colour=FAINT_INK, align="left")
