"""Takes a picture of the page of ``sparseformers view``, with a token brought out.

Needs the extra ``view``, selenium, and Chromium with its driver:

    python examples/page_screenshot.py runs/paper photos/motorcycle.jpg --beside runs/inherited --out view.jpg
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import WebDriverWait

import sparseformers

READY = "return !document.querySelector('#pictures').hidden && document.querySelector('#busy').hidden"
LISTED = "return document.querySelector('#nearest').hidden || document.querySelectorAll('#neighbours img').length > 0"


def main() -> None:
    """Serves the page, hovers a token and writes what is seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--beside")
    parser.add_argument("--neighbours", type=Path)
    parser.add_argument("--out", type=Path, default=Path("view.jpg"))
    parser.add_argument("--at", type=float, nargs=2, default=(0.5, 0.5), help="where to hover the first picture, in [0, 1] of it")
    parser.add_argument("--attention", choices=("", "map", "last", "rollout"), default="")
    parser.add_argument("--size", type=int, nargs=2, default=(1440, 900), help="of the window, in pixels")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    with sparseformers.view(options.run, options.images, beside=options.beside, neighbours=options.neighbours) as page:
        picture = photograph(page.url, options)
    picture.save(options.out, quality=78)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


def photograph(url: str, options: argparse.Namespace) -> Image.Image:
    """The page at an address as a browser shows it."""
    driver = start_browser(*options.size)
    try:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if options.dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        driver.get(url)
        for ready in (READY, LISTED):
            WebDriverWait(driver, 300).until(lambda _, ready=ready: driver.execute_script(ready))
        driver.execute_script(
            "document.querySelector(`input[name=attention][value='${arguments[0]}']`).click()", options.attention
        )
        frame = driver.find_element("css selector", ".picture")
        offset = [
            round((place - 0.5) * side)
            for place, side in zip(options.at, (frame.size["width"], frame.size["height"]), strict=True)
        ]
        ActionChains(driver).move_to_element_with_offset(frame, *offset).perform()
        time.sleep(1.5)  # thumbnails and transitions
        return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    finally:
        driver.quit()


def start_browser(width: int, height: int) -> webdriver.Chrome:
    """Chromium without a window."""
    settings = webdriver.ChromeOptions()
    settings.binary_location = str(shutil.which("chromium") or shutil.which("google-chrome"))
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        settings.add_argument(argument)
    if os.geteuid() == 0:
        settings.add_argument("--no-sandbox")
    driver = webdriver.Chrome(options=settings, service=Service(str(shutil.which("chromedriver"))))
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    return driver


if __name__ == "__main__":
    main()
