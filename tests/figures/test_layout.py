from __future__ import annotations

import numpy as np
import pytest

from sparseformers.figures.sheet import Place, block_columns, lay_out

SIZES = [(40, 60), (60, 40), (40, 200), (200, 40), (50, 50)]


def overlapping(places: list[Place]) -> int:
    """How many pairs of rectangles overlap."""
    boxes = np.array([(left, bottom, left + width, bottom + height) for left, bottom, width, height in places])
    near, far = boxes[:, None, :2], boxes[:, None, 2:]
    common = np.minimum(far, far.swapaxes(0, 1)) - np.maximum(near, near.swapaxes(0, 1))
    return int(((common.min(axis=-1) > 1e-9).sum() - len(boxes)) // 2)


@pytest.mark.parametrize("count", range(1, 65, 9))
@pytest.mark.parametrize("groups", [(), (4, 2)])
def test_nothing_overlaps_and_all_lies_on_the_sheet(count: int, groups: tuple[int, ...]) -> None:
    sizes = [SIZES[index % len(SIZES)] for index in range(count)]
    sheet = lay_out(sizes, panels=7, columns=block_columns(count, 7), groups=groups)
    assert len(sheet.panels) == len(sheet.row_titles) == count
    places = [place for row in sheet.panels for place in row]
    places += [
        *sheet.row_titles,
        *(place for titles in (sheet.column_titles, sheet.group_titles) for row in titles for place in row),
    ]
    assert overlapping(places) == 0
    for left, bottom, width, height in places:
        assert min(left, bottom, width, height) >= 0
        assert left + width <= 1 + 1e-9
        assert bottom + height <= 1 + 1e-9


@pytest.mark.parametrize("size", SIZES)
def test_panels_have_the_shape_of_their_picture(size: tuple[float, float]) -> None:
    sheet = lay_out([size, (50, 50)], panels=3, columns=1)
    for place in sheet.panels[0]:
        assert place.width * sheet.width / (place.height * sheet.height) == pytest.approx(size[0] / size[1])


def test_a_group_spans_its_columns_and_those_before_have_none() -> None:
    sheet = lay_out([(50, 50)], panels=7, columns=1, groups=(4, 2))
    (columns,), (groups,) = sheet.column_titles, sheet.group_titles
    assert len(columns) == 7
    assert [(group.left, group.left + group.width) for group in groups] == [
        (pytest.approx(columns[first].left), pytest.approx(columns[last].left + columns[last].width))
        for first, last in ((1, 4), (5, 6))
    ]
    assert all(group.bottom >= columns[0].bottom + columns[0].height - 1e-9 for group in groups)
