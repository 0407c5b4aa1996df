"""A real Chromium without a window, what it did on the network, and what can be seen in it of the page."""

import base64
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sparseformers.viewer import Session

REQUIRED = os.environ.get("BROWSER_TESTS") == "required"
"""Set by .ci/run: without a browser the tests then fail, and are not skipped."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOME, RIGHT, ESCAPE, TAB = "\ue011", "\ue014", "\ue00c", "\ue004"
"""Keys, by their codes in WebDriver."""
PATIENCE = 40.0
"""Seconds to wait for something that the page should do; machines of many tests are slow."""
SHOWN = "!document.querySelector('#pictures').hidden && document.querySelector('#busy').hidden"
UNITS = 1000.0
"""Of the page's drawing across a photograph."""


def do_without(reason: str) -> None:
    """Skips the test, or fails it where a browser is required."""
    if REQUIRED:
        pytest.fail(f"{reason}, and BROWSER_TESTS is 'required'")
    pytest.skip(reason)


class Browser:
    """One window."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def open(self, url: str) -> None:
        """Opens a page, and forgets what was asked of the network before."""
        self.driver.get("about:blank")
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(url)

    def wait(self, script: str, *arguments: object) -> Any:
        return self.until(lambda: self.run(f"return {script}", *arguments), script)

    def until(self, ask: Callable[[], Any], what: str) -> Any:
        """What ``ask`` gives as soon as it is true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := ask():
                return found
            time.sleep(0.05)
        raise AssertionError(f"did not come true: {what}; the page says {self.run('return document.body.innerText')!r}")

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        said: str = self.run("return document.querySelector(arguments[0]).textContent", selector)
        return said

    def hover(self, element: Any, across: float, down: float) -> None:
        """Moves the pointer to a place in [0, 1] of an element."""
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        x, y = (across - 0.5) * element.size["width"], (down - 0.5) * element.size["height"]
        self._actions().move_to_element_with_offset(element, round(x), round(y)).perform()

    def _actions(self) -> Any:
        from selenium.webdriver.common.action_chains import ActionChains

        return ActionChains(self.driver)

    def press(self, *keys: str) -> None:
        for key in keys:
            self._actions().send_keys(key).perform()

    def choose(self, *paths: Path) -> None:
        self.find("#file").send_keys("\n".join(str(path) for path in paths))

    def drop(self, path: Path) -> None:
        """Drops a file on the page, as a pointer that carries it would."""
        script = """
            const bytes = Uint8Array.from(atob(arguments[0]), (character) => character.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], arguments[1]));
            for (const kind of ["dragenter", "dragover", "drop"])
              document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true}));"""
        self.run(script, base64.b64encode(path.read_bytes()).decode(), path.name)

    def requested(self) -> list[str]:
        """The addresses that were asked for since the page was opened, or the last time that this was asked."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"]
        return asked + [message["params"]["url"] for message in messages if message["method"] == "Network.webSocketCreated"]

    def boxes(self, panel: int = 0) -> list[list[float]]:
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
        drawn: list[list[float]] = self.run(script, panel)
        return drawn

    def until_stage(self, session: Session, key: str, stage: int, *, model: int = 0) -> None:
        """Waits until the regions have glided to a stage of an image."""
        expected = expected_boxes(session.trace(key, str(model)), stage)
        self.until(lambda: near(self.boxes(model), expected), f"regions of model {model} at stage {stage}")

    def shown_key(self, panel: int = 0) -> str:
        source: str = self.run("return document.querySelectorAll('.picture img')[arguments[0]].src", panel)
        return source.split("/")[-2]

    def painted(self, selector: str) -> float:
        """The share of a canvas that is not clear."""
        script = """
            const canvas = document.querySelector(arguments[0]);
            const values = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            let count = 0;
            for (let place = 3; place < values.length; place += 4) count += values[place] > 0;
            return (4 * count) / values.length;"""
        share: float = self.run(script, selector)
        return share

    def complaints(self) -> list[str]:
        """Errors in the browser's console, such as what the Content-Security-Policy has blocked."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@contextmanager
def chromium(width: int = 1400, height: int = 1000) -> Iterator[Browser]:
    """Starts Chromium; skips the test where it, its driver or selenium is missing."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ModuleNotFoundError:
        do_without("selenium is not installed")
    binary = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        do_without("Chromium or its chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(binary)
    arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # whom Chromium's sandbox does not let in
        arguments.append("--no-sandbox")
    for argument in (*arguments, f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(str(driver)))
    try:
        started.set_script_timeout(PATIENCE)
        yield Browser(started)
    finally:
        started.quit()


def expected_boxes(traced: dict[str, Any], stage: int) -> list[list[float]]:
    left, top, right, bottom = traced["seen"]
    width, height = right - left, bottom - top
    rois = traced["rois"][stage]
    return [[left + x1 * width, top + y1 * height, left + x2 * width, top + y2 * height] for x1, y1, x2, y2 in rois]


def near(ours: list[list[float]], theirs: list[list[float]]) -> bool:
    pairs = zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True)
    return all(abs(one - other) < 1e-3 for one, other in pairs)
