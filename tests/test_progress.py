import io

import pytest
from rich.console import Console

from sparseformers import progress
from sparseformers.progress import ImageProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands at its only element."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_without_a_terminal__a_line_now_and_then_with_rate_and_time_left_where_sizes_are_known(clock: list[float]) -> None:
    written = io.StringIO()
    with ImageProgress(Console(file=written, width=40), "embedding", size=1000, total=50, images=10, reached=200) as bar:
        clock[0] = 10.0
        bar.step(5, 0, 300)
        assert written.getvalue() == ""
        clock[0] = 40.0
        bar.step(14, 1, 600)
        assert written.getvalue() == "30 of 50 images  0.5 img/s  1 skipped  about 40 s left\n"
    assert bar.images_per_second == 0.5
    written, clock[0] = io.StringIO(), 0.0
    with ImageProgress(Console(file=written), "embedding", size=0, total=None, images=0, reached=0) as bar:
        clock[0] = 40.0
        bar.step(20, 0, 0)
    assert written.getvalue() == "20 images  0.5 img/s\n"


def test_on_a_terminal__a_bar(clock: list[float]) -> None:
    written = io.StringIO()
    console = Console(file=written, width=120, force_terminal=True, color_system=None)
    with ImageProgress(console, "embedding", size=1000, total=50, images=0, reached=0) as bar:
        clock[0] = 5.0
        bar.step(20, 0, 400)
    assert "20 of 50 images  4.0 img/s" in written.getvalue()
    assert "40%" in written.getvalue()
