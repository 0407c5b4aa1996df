"""Sheets: where panels and titles go, and what is refused."""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot

from sparseformers.errors import ConfigError
from sparseformers.figures import RoIPicture, draw_student, save_figure
from sparseformers.figures.sheet import shorten_title
from tests.figures.overlaps import check_no_overlap
from tests.figures.pictures import headings, picture


class TestSheet:
    def test_the_aspect_ratio_is_kept(self) -> None:
        height, width = 300, 40
        figure = draw_student([picture(height=height, width=width), picture()])
        inches = figure.get_size_inches()
        for axes in figure.axes[:5]:
            panel = axes.get_position(original=True)
            (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
            per_pixel = panel.width * inches[0] / (right - left), panel.height * inches[1] / (bottom - top)
            assert per_pixel[0] == pytest.approx(per_pixel[1])
            assert axes.images[0].get_extent() == [0, width, height, 0]

    def test_columns_titles_stand_once_at_the_top_of_each_block(self) -> None:
        for pictures, columns, blocks in ((2, 1, 1), (3, 2, 2), (1, 3, 1)):
            assert headings(draw_student([picture(stages=1)] * pictures, columns=columns)).count("Input") == blocks

    def test_a_long_title_loses_its_middle_and_overlaps_nothing(self) -> None:
        pictures = [picture(height=200, width=40, title="a long name " * 40), picture(), picture()]
        check_no_overlap(draw_student(pictures, columns=2))
        title = headings(draw_student([picture(title="start" + "x" * 500 + "end.png")]))[-1]
        assert title.startswith("startx")
        assert title.endswith("xend.png")
        assert "…" in title

    def test_a_title_is_no_formula_and_pyplot_is_left_alone(self, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            save_figure(draw_student([picture(title="cost_$\\frac_$.png")]), tmp_path / "a.png", dpi=30)
        assert (tmp_path / "a.png").is_file()
        assert pyplot.get_fignums() == []


def test_wrong_requests() -> None:
    requests: list[tuple[list[RoIPicture], dict[str, Any], str]] = [
        ([], {}, r"There is no picture to draw\. Give at least one image\."),
        ([picture()] * 65, {}, r"65 pictures are too many for one sheet\. Draw at most 64 at a time\."),
        ([picture(stages=5)], {"stages": [0, 5]}, r"There is no stage 5: the student has 5\. Choose from 0 .* to 4"),
        ([picture(stages=5)], {"stages": [0, -6]}, r"There is no stage -6: the student has 5\. Choose from 0 .* to 4"),
        ([picture()], {"columns": 0}, r"A sheet cannot have 0 columns\. Ask for one column or more\."),
    ]
    for pictures, options, message in requests:
        with pytest.raises(ConfigError, match=message):
            draw_student(pictures, **options)
    with pytest.raises(ValueError, match="same numbers of stages and tokens"):
        draw_student([picture(tokens=6), picture(tokens=7)])


NAMES = [os.fsdecode(b"caf\xe9.jpg"), "two\nlines.jpg", "bell\x07.jpg", "turned\u202egpj.jpg", "cost $5 or $6.jpg", "a_b^{c.jpg"]


def test_draw_student__takes_any_file_name(tmp_path: Path) -> None:
    assert all(shorten_title(name, letters=100).isprintable() for name in NAMES)
    save_figure(draw_student([picture(title=name, stages=1) for name in NAMES]), tmp_path / "names.svg")
    assert (tmp_path / "names.svg").stat().st_size > 1000
