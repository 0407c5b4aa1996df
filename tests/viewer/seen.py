"""What can be seen on the page in a real browser, and what should be."""

import itertools
from typing import Any

from sparseformers.viewer import Session
from tests.viewer.browser import Browser

SHOWN = "!document.querySelector('#pictures').hidden && document.querySelector('#busy').hidden"
UNITS = 1000.0
"""Of the page's drawing across a photograph."""


def boxes(browser: Browser, panel: int = 0) -> list[list[float]]:
    """The regions as they are drawn in a panel, (x1, y1, x2, y2) in [0, 1] of the photograph, by token."""
    script = """
        const drawing = document.querySelectorAll(".drawing")[arguments[0]];
        const [, , across, down] = drawing.getAttribute("viewBox").split(" ").map(Number);
        const tokens = [...drawing.querySelectorAll(".token")].sort((one, other) => one.dataset.token - other.dataset.token);
        return tokens.map((token) => {
          const box = token.querySelector(".box");
          const [x, y, width, height] = ["x", "y", "width", "height"].map((name) => Number(box.getAttribute(name)));
          return [x / across, y / down, (x + width) / across, (y + height) / down];
        });"""
    drawn: list[list[float]] = browser.run(script, panel)
    return drawn


def expected_boxes(traced: dict[str, Any], stage: int) -> list[list[float]]:
    left, top, right, bottom = traced["seen"]
    width, height = right - left, bottom - top
    rois = traced["rois"][stage]
    return [[left + x1 * width, top + y1 * height, left + x2 * width, top + y2 * height] for x1, y1, x2, y2 in rois]


def near(ours: list[list[float]], theirs: list[list[float]]) -> bool:
    pairs = zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True)
    return all(abs(one - other) < 1e-3 for one, other in pairs)


def until_stage(browser: Browser, session: Session, key: str, stage: int, *, model: int = 0) -> None:
    """Waits until the regions have glided to a stage of an image."""
    expected = expected_boxes(session.trace(key, str(model)), stage)
    browser.until(lambda: near(boxes(browser, model), expected), f"regions of model {model} at stage {stage}")


def shown_key(browser: Browser, panel: int = 0) -> str:
    source: str = browser.run("return document.querySelectorAll('.picture img')[arguments[0]].src", panel)
    return source.split("/")[-2]


def painted(browser: Browser, selector: str) -> float:
    """The share of a canvas that is not clear."""
    script = """
        const canvas = document.querySelector(arguments[0]);
        const values = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let count = 0;
        for (let place = 3; place < values.length; place += 4) count += values[place] > 0;
        return (4 * count) / values.length;"""
    share: float = browser.run(script, selector)
    return share
