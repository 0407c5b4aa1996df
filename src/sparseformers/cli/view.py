"""``sparseformers view``."""

from __future__ import annotations

import os
import sys
import time
import webbrowser
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from sparseformers.cli.output import console_for, embedding_progress, say
from sparseformers.viewer.config import ViewConfig

if TYPE_CHECKING:
    from sparseformers.viewer import Page

WAIT = 0.2  # seconds between two checks of whether the page is still being served


@dataclass(frozen=True)
class View:
    """See the regions of interest of a student, in a page on this machine: drop an image, slide through stages, hover tokens.

    The page shows each token's region of interest, its sampling points, what is inside and how much it counts; the teacher's
    attention; a second model; the nearest neighbours in a folder. It works offline: nothing is loaded from elsewhere, nothing is
    sent anywhere, and dropped images are never written to the disk.

    Example: sparseformers view runs/first photos

    Example: sparseformers view runs/first photos --beside runs/second --neighbours photos/train
    """

    settings: Annotated[ViewConfig, tyro.conf.arg(name="")]
    browser: bool = True
    """Open the page in a browser, if there is a display; --no-browser prints its address alone."""

    def run(self) -> None:
        from sparseformers.viewer import serve

        console = console_for(as_json=False)
        try:
            with serve(self.settings, framed=False) as page:
                self._announce(page, console)
                _embed_with_bar(page, console)
                while page.open:
                    time.sleep(WAIT)
        except KeyboardInterrupt:
            say(console, "closed")

    def _announce(self, page: Page, console: Console) -> None:
        networks, library = page.session.networks, page.session.library
        if networks.teacher_problem is not None:
            say(console, networks.teacher_problem)
        for gallery in (library.images, library.neighbours):
            for path, reason in gallery.faults:
                say(console, f"left out: {path}: {reason}")
            if gallery.led_out:
                say(console, f"left out: {gallery.led_out} links that lead out of their folder")
        for error in library.unreadable:
            say(console, error.problem)
        if page.asked_port not in (0, page.port):
            say(console, f"port {page.asked_port} is in use, so it is {page.port}")
        say(console, f"{page.url}  (Ctrl-C ends it)")
        if self.browser and has_display():
            webbrowser.open(page.url)


def has_display() -> bool:
    """Whether a browser could show itself here; without a display a text browser would take over the terminal."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _embed_with_bar(page: Page, console: Console) -> None:
    """Shows how the folder of neighbours is being embedded, while the page is served already; names what cannot be read."""
    index = page.session.indices.get("0")
    if index is None:
        return
    with embedding_progress(console, "neighbours", len(index.gallery)) as advance:
        told = 0
        while page.open and not index.ready and index.problem is None:
            time.sleep(WAIT)
            advance(index.done - told)
            told = index.done
    for error in index.skipped:
        say(console, f"skipped {error.path}: {error.reason}")
    if index.problem is not None:
        say(console, f"No neighbours: {index.problem.problem}")
