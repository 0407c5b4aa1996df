"""The page in a real browser where something is out of the ordinary: bad files, large ones, no server, no teacher, frames."""

import http.server
import threading
from pathlib import Path

import pytest
from PIL import Image

from sparseformers.inheritance import inherit
from sparseformers.viewer import Page, Session
from tests.evaluation.students import original
from tests.tiny import write_images
from tests.viewer.browser import HOME, SHOWN, Browser
from tests.viewer.small import TOKENS, Small, config_of, networks_of

pytestmark = pytest.mark.slow

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


def test_an_unreadable_file_is_named_and_the_page_goes_on(page: Page, browser: Browser, tmp_path: Path) -> None:
    (good,) = write_images(tmp_path, 1, seed=9)
    bad = tmp_path / "notes.jpg"
    bad.write_text("not an image")
    browser.choose(bad)
    browser.wait("!document.querySelector('#message').hidden")
    assert browser.text("#message p") == "'notes.jpg' cannot be read: not an image of a known format. Choose another image."
    assert browser.shown_key() == "g0"
    browser.choose(bad, good)
    browser.wait(f"document.querySelector('.picture img').alt.startsWith('{good.name}') && {SHOWN}")
    assert "'notes.jpg' cannot be read" in browser.text("#message p")
    browser.find("#message button").click()
    assert browser.run("return document.querySelector('#message').hidden")


def test_a_photograph_of_twenty_megapixels(page: Page, browser: Browser, tmp_path: Path) -> None:
    rows, columns = Image.linear_gradient("L").resize((5472, 3648)), Image.radial_gradient("L").resize((5472, 3648))
    path = tmp_path / "large.jpg"
    Image.merge("RGB", (rows, columns, rows.rotate(180))).save(path, quality=95)
    browser.choose(path)
    browser.wait(f"document.querySelector('.picture img').alt.startsWith('large.jpg') && {SHOWN}")
    assert browser.run("return document.querySelector('.picture img').naturalWidth") == 1600
    key = browser.shown_key()
    assert page.session.describe(key) == {"key": key, "name": "large.jpg", "width": 5472, "height": 3648}
    browser.until_stage(page.session, key, 3)


def test_a_map_is_laid_over_the_picture_without_a_teacher(small: Small, browser: Browser) -> None:
    student = inherit(small.networks.teacher, front="mixed", tokens=10).student
    session = Session(config_of(small, images=(small.photos / "photograph_000.jpg",)), networks_of(student))
    with Page(session, port=0, framed=False) as page:
        browser.open(page.url)
        browser.wait(SHOWN)
        shown = "return [...document.querySelectorAll('#attention-kind label:not([hidden])')].map((one) => one.innerText)"
        assert browser.run(shown) == ["Off", "Map"]
        assert browser.text("#stage-name").endswith(", leaves")
        browser.run("document.querySelector('input[name=attention][value=map]').click()")
        browser.until(lambda: browser.painted(".heat") > 0.2, "the map")


def test_a_file_that_is_too_large_is_not_sent(page: Page, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    path.write_bytes(bytes(32_100_000))
    browser.requested()
    browser.choose(path)
    browser.wait("!document.querySelector('#message').hidden")
    assert browser.text("#message p").startswith("'huge.jpg' has 32.1 MB, and at most 32 MB are taken.")
    assert browser.run("return document.querySelector('#busy').hidden")
    browser.run("return fetch('/api/state'), fetch('/'), fetch('/page/page.js'), fetch('/page/style.css'), null")
    browser.run("return fetch('/page/tokens.js'), fetch('/page/drawing.js'), null")  # so that there is something in the log
    browser.wait("performance.getEntriesByName(location.origin + '/page/drawing.js').length")


def test_folders_with_an_unreadable_image_and_no_teacher(small: Small, browser: Browser) -> None:
    with Page(Session(config_of(small, run=str(small.orphan))), port=0, framed=False) as page:
        browser.open(page.url)
        browser.wait("!document.querySelector('#message').hidden")  # the first image is the one that cannot be read
        assert "'broken.jpg' cannot be read" in browser.text("#message p")
        said = browser.wait("document.querySelector('#gallery .unreadable')?.textContent")
        assert said.startswith("'broken.jpg' cannot be read: not an image of a known format.")
        browser.run("document.querySelectorAll('#gallery button')[1].click()")
        browser.wait(SHOWN)
        assert browser.run("return document.querySelector('#message').hidden")
        assert "does not say which teacher it was made from" in browser.text("#teacher")
        assert browser.run("return document.querySelector('#attention-kind').hidden && document.querySelector('#nearest').hidden")


def test_a_student_that_reads_nothing_at_its_start(small: Small, browser: Browser) -> None:
    config = config_of(small, images=(small.photos / "photograph_000.jpg",))
    with Page(Session(config, networks_of(original(small.networks.teacher))), port=0, framed=False) as page:
        browser.open(page.url)
        browser.wait(SHOWN)
        browser.find("#show-points").click()
        browser.find("#stage").send_keys(HOME)
        browser.until_stage(page.session, "g0", 0)
        browser.hover(browser.find(".picture"), 0.5, 0.5)
        browser.wait("document.querySelector('.token.chosen')")
        assert "none: nothing is read at this stage" in browser.text("#token")
        assert browser.run("return document.querySelectorAll('.front .point').length") == 0
        assert browser.complaints() == []


def test_a_server_that_has_ended_is_told(small: Small, browser: Browser) -> None:
    page = Page(Session(config_of(small, images=(small.photos / "photograph_000.jpg",)), small.networks), port=0, framed=False)
    browser.open(page.url)
    browser.wait(SHOWN)
    page.close()
    browser.run("document.querySelector('#gallery button').click()")
    browser.wait("!document.querySelector('#message').hidden")
    assert browser.text("#message p").startswith("The server does not answer. It may have been closed")


@pytest.mark.parametrize("framed", [True, False])
def test_only_notebooks_may_frame_it_and_only_where_it_is_for_them(small: Small, browser: Browser, framed: bool) -> None:
    class Notebook(http.server.BaseHTTPRequestHandler):
        content = b""

        def do_GET(self) -> None:  # the library's name
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(self.content)

        def log_message(self, *_: object) -> None: ...

    session = Session(config_of(small, images=(small.photos / "photograph_000.jpg",)), small.networks)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Notebook)
    with Page(session, port=0, framed=framed) as page, server as notebook:
        Notebook.content = page._repr_html_().encode()
        threading.Thread(target=notebook.serve_forever, daemon=True).start()
        browser.open(f"http://localhost:{notebook.server_port}/")
        browser.driver.switch_to.frame(browser.find("iframe"))
        try:
            if framed:
                browser.wait(SHOWN)
                assert browser.run("return document.querySelectorAll('.token').length") == TOKENS
            else:
                assert browser.run("return document.querySelector('#pictures')") is None
        finally:
            browser.driver.switch_to.default_content()
            notebook.shutdown()
