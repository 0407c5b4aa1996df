from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparseformers.figures import draw_student, save_figure
from sparseformers.figures.sheet import shorten_title
from tests.figures.pictures import picture

NAMES = [os.fsdecode(b"caf\xe9.jpg"), "two\nlines.jpg", "bell\x07.jpg", "turned\u202egpj.jpg", "cost $5 or $6.jpg", "a_b^{c.jpg"]


def test_shorten_title__leaves_out_the_middle() -> None:
    assert shorten_title("abcdefghij", letters=10) == "abcdefghij"
    assert shorten_title("abcdefghijk", letters=5) == "ab…jk"


@pytest.mark.parametrize("name", NAMES)
def test_shorten_title__of_any_file_name_can_be_read(name: str) -> None:
    assert shorten_title(name, letters=100).isprintable()


def test_draw_student__takes_any_file_name(tmp_path: Path) -> None:
    save_figure(draw_student([picture(title=name) for name in NAMES]), tmp_path / "names.svg")
    assert (tmp_path / "names.svg").stat().st_size > 1000
