"""Where the panels of a sheet go: arithmetic in inches, nothing is drawn here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

LONGEST_SIDE = 2.5
"""Of a panel, in inches."""
NARROWEST_CELL = 2.0
"""In inches: room for the title of a column."""
GAP = 0.05
"""Between the panels of a picture, in inches."""
BLOCK_GAP = 0.4
"""Between pictures side by side, in inches."""
CELL_GAP = 0.09
"""Between the cells that a place is divided into, in inches."""
ROW_GAP = 0.05
"""Between pictures one below the other, in inches."""
ROW_TITLE = 0.2
"""Height of a picture's title, in inches."""
COLUMN_TITLE = 0.3
"""Height of the titles at the top, in inches."""
GROUP_TITLE = 0.25
"""Height of the names of groups of columns, in inches."""
BORDER = 0.12
"""Around the sheet, in inches."""


class Place(NamedTuple):
    """A rectangle on the sheet, in shares of its width and height, from the bottom left as matplotlib counts."""

    left: float
    bottom: float
    width: float
    height: float


@dataclass(frozen=True)
class Sheet:
    """Where everything goes."""

    width: float
    """In inches."""
    height: float
    """In inches."""
    panels: tuple[tuple[Place, ...], ...]
    """For each picture, its panels from left to right."""
    row_titles: tuple[Place, ...]
    """For each picture, the strip above its panels."""
    column_titles: tuple[tuple[Place, ...], ...]
    """For each block of panels side by side, the strips above its columns."""
    group_titles: tuple[tuple[Place, ...], ...]
    """For each block, the strips above groups of its columns; empty ones without groups."""


def block_columns(pictures: int, panels: int) -> int:
    """How many pictures (each a row of panels) to put side by side for a sheet that is about square."""
    return max(1, round(math.sqrt(pictures / panels)))


def lay_out(
    sizes: Sequence[tuple[float, float]], *, panels: int, columns: int, groups: Sequence[int] = (), caption: float = 0.0
) -> Sheet:
    """Places rows of panels on a sheet, each panel in the aspect ratio of its picture.

    Args:
        sizes: width and height of each picture, in any unit.
        panels: in the row of each picture.
        columns: pictures side by side.
        groups: how many panels each named group has; those before the groups belong to none.
        caption: room under each row of panels, in inches.
    """
    scaled = [(width * LONGEST_SIDE / max(width, height), height * LONGEST_SIDE / max(width, height)) for width, height in sizes]
    columns = min(columns, len(sizes))
    cell = max(NARROWEST_CELL, *(width for width, _ in scaled))
    block = panels * cell + (panels - 1) * GAP
    rows = [caption + max(height for _, height in scaled[start : start + columns]) for start in range(0, len(sizes), columns)]
    sheet_width = 2 * BORDER + columns * block + (columns - 1) * BLOCK_GAP
    head = COLUMN_TITLE + (GROUP_TITLE if groups else 0)
    sheet_height = 2 * BORDER + head + sum(rows) + len(rows) * (ROW_TITLE + ROW_GAP) - ROW_GAP

    def place(left: float, top: float, width: float, height: float) -> Place:
        """Inches from the top left, to shares from the bottom left."""
        bottom = sheet_height - top - height
        return Place(left / sheet_width, bottom / sheet_height, width / sheet_width, height / sheet_height)

    panel_places, row_titles = [], []
    top = BORDER + head
    for row, row_height in enumerate(rows):
        for column, (width, height) in enumerate(scaled[row * columns : (row + 1) * columns]):
            left = BORDER + column * (block + BLOCK_GAP)
            lefts = [left + panel * (cell + GAP) + (cell - width) / 2 for panel in range(panels)]
            panel_places.append(tuple(place(start, top + ROW_TITLE, width, height) for start in lefts))
            row_titles.append(place(lefts[0], top, block - (lefts[0] - left), ROW_TITLE))
        top += ROW_TITLE + row_height + ROW_GAP

    def strips(height: float, bottom: float, spans: Sequence[tuple[int, int]]) -> tuple[tuple[Place, ...], ...]:
        """For each block, strips over spans of its panels (the first one, and how many), that end at ``bottom``."""
        return tuple(
            tuple(
                place(
                    BORDER + column * (block + BLOCK_GAP) + first * (cell + GAP),
                    bottom - height,
                    count * (cell + GAP) - GAP,
                    height,
                )
                for first, count in spans
            )
            for column in range(columns)
        )

    firsts = accumulate(groups, initial=panels - sum(groups))
    column_titles = strips(COLUMN_TITLE, BORDER + head, [(panel, 1) for panel in range(panels)])
    group_titles = strips(GROUP_TITLE, BORDER + GROUP_TITLE, list(zip(firsts, groups, strict=False)))
    return Sheet(sheet_width, sheet_height, tuple(panel_places), tuple(row_titles), column_titles, group_titles)


def divide(place: Place, count: int, *, width: float, height: float, caption: float) -> list[Place]:
    """Divides a place into equal cells, in as many rows as make them largest.

    Args:
        place: to divide.
        count: of cells, at least 1.
        width: of the sheet, in inches.
        height: of the sheet, in inches.
        caption: room under each cell, in inches; that under the last row is below the place.

    Returns:
        The cells, row by row, with gaps between them.
    """
    wide, high = place.width * width, place.height * height

    def cell(rows: int) -> tuple[float, float]:
        columns = math.ceil(count / rows)
        return (wide - (columns - 1) * CELL_GAP) / columns, (high - (rows - 1) * (caption + CELL_GAP)) / rows

    rows = max(range(1, count + 1), key=lambda rows: min(cell(rows)))
    columns, (cell_width, cell_height) = math.ceil(count / rows), cell(rows)
    lefts = [column * (cell_width + CELL_GAP) for column in range(columns)]
    tops = [row * (cell_height + caption + CELL_GAP) for row in range(rows)]
    return [
        Place(
            place.left + lefts[index % columns] / width,
            place.bottom + (high - tops[index // columns] - cell_height) / height,
            cell_width / width,
            cell_height / height,
        )
        for index in range(count)
    ]
