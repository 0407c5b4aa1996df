"""The page in a real browser: what a person does there, and what they see."""

from __future__ import annotations

import http.server
import itertools
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sparseformers.saving import load
from sparseformers.view import Page, Session
from tests.evaluate.students import original
from tests.tiny import write_images
from tests.view.browser import Browser, chromium
from tests.view.small import TOKENS, Small, config_of, networks_of

pytestmark = pytest.mark.slow

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

SHOWN = "!document.querySelector('#pictures').hidden && document.querySelector('#busy').hidden"
UNITS = 1000.0
"""Of the page's drawing across a photograph."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def served(small: Small) -> Iterator[Page]:
    """A page with all that it can have."""
    config = config_of(small, beside=str(small.other), neighbours=small.photos, images=(small.photos / "photograph_000.jpg",))
    with Page(Session(config), port=0, framed=False) as page:
        yield page


@pytest.fixture
def page(served: Page, browser: Browser) -> Iterator[Page]:
    """The page, open; afterwards, whether all that it asked for came from its own server, and nothing was blocked."""
    browser.open(served.url)
    browser.wait(SHOWN)
    yield served
    requested = browser.requested()
    assert len(requested) > 5
    hosts = {urllib.parse.urlsplit(url).hostname for url in requested}
    assert hosts == {"127.0.0.1"}
    assert [url for url in requested if not url.startswith(served.url)] == []
    expected = ("422", "404")  # images that cannot be read are answered so, and the console lists every such answer
    assert [said for said in browser.complaints() if not any(f"status of {status}" in said for status in expected)] == []


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


def expected_boxes(look: dict[str, Any], stage: int) -> list[list[float]]:
    x1, y1, x2, y2 = look["seen"]
    return [
        [x1 + roi[0] * (x2 - x1), y1 + roi[1] * (y2 - y1), x1 + roi[2] * (x2 - x1), y1 + roi[3] * (y2 - y1)]
        for roi in look["rois"][stage]
    ]


def near(ours: list[list[float]], theirs: list[list[float]]) -> bool:
    pairs = zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True)
    return all(abs(one - other) < 1e-3 for one, other in pairs)


def until_stage(browser: Browser, session: Session, key: str, stage: int, *, model: int = 0) -> None:
    """Waits until the regions have glided to a stage of an image."""
    expected = expected_boxes(session.look(key, str(model)), stage)
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


def test_an_image_is_chosen(page: Page, browser: Browser, tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1, seed=7)
    browser.choose(path)
    browser.wait(f"document.querySelector('.picture img').alt.startsWith('{path.name}') && {SHOWN}")
    key = shown_key(browser)
    assert key.startswith("u")
    look = page.session.look(key, "0")
    until_stage(browser, page.session, key, 3)  # the last stage is shown first
    assert len(boxes(browser)) == TOKENS
    assert f"{TOKENS} tokens · cosine with the teacher {look['cosine']:.3f}" in browser.text(".facts")
    assert browser.run("return document.querySelector('#gallery button').title") == path.name


def test_an_image_is_dropped(page: Page, browser: Browser, tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1, seed=8)
    path = path.rename(tmp_path / "dropped <b>here.jpg")
    browser.drop(path)
    browser.wait(f"document.querySelector('.picture img').alt.startsWith('{path.name}') && {SHOWN}")
    assert browser.run("return document.querySelector('#dropping').hidden")
    assert browser.run("return document.querySelectorAll('b').length") == 0


def test_the_slider_moves_the_regions(page: Page, browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    until_stage(browser, page.session, "g0", 3)
    browser.find("#stage").send_keys(Keys.HOME)
    until_stage(browser, page.session, "g0", 0)
    assert browser.text("#stage-name") == "1 of 4, the start"
    browser.find("#stage").send_keys(Keys.ARROW_RIGHT)
    until_stage(browser, page.session, "g0", 1)
    assert browser.run("return document.querySelector('#stage').getAttribute('aria-valuetext')") == "2 of 4"


def test_the_regions_glide(page: Page, browser: Browser) -> None:
    """Between two stages they are seen in between."""
    start, end = (expected_boxes(page.session.look("g0", "0"), stage) for stage in (0, 3))
    token = max(range(TOKENS), key=lambda token: abs(end[token][0] - start[token][0]))
    script = """
        const done = arguments[arguments.length - 1];
        const box = document.querySelector(`.token[data-token="${arguments[0]}"] .box`);
        const seen = [];
        const slider = document.querySelector("#stage");
        slider.value = 0;
        slider.dispatchEvent(new Event("input"));
        const watch = () => {
          seen.push(Number(box.getAttribute("x")));
          seen.length < 90 ? requestAnimationFrame(watch) : done(seen);
        };
        requestAnimationFrame(watch);"""
    until_stage(browser, page.session, "g0", 3)
    seen = [place / UNITS for place in browser.driver.execute_async_script(script, token)]
    low, high = sorted([start[token][0], end[token][0]])
    margin = 0.05 * (high - low)
    assert any(low + margin < place < high - margin for place in seen)
    until_stage(browser, page.session, "g0", 0)


def test_playing_goes_through_all_stages(page: Page, browser: Browser) -> None:
    browser.find("#play").click()
    seen = set()

    def ended() -> bool:
        seen.add(browser.text("#stage-name"))
        return len(seen) > 1 and browser.run("return !document.querySelector('#play').classList.contains('playing')")

    browser.until(ended, "the end of playing")
    seen.add(browser.text("#stage-name"))
    assert {"1 of 4, the start", "4 of 4, the last"} <= seen
    until_stage(browser, page.session, "g0", 3)


def test_hovering_brings_out_a_token(page: Page, browser: Browser) -> None:
    look = page.session.look("g0", "0")
    until_stage(browser, page.session, "g0", 3)
    picture = browser.find(".picture")
    roi = expected_boxes(look, 3)[2]
    browser.hover(picture, (roi[0] + roi[2]) / 2, (roi[1] + roi[3]) / 2)
    token = int(browser.wait("document.querySelector('.token.chosen')?.dataset.token"))
    # The pointer is in the middle of token 2; another region may lie over it, but it is around the pointer, too.
    chosen = expected_boxes(look, 3)[token]
    assert chosen[0] <= (roi[0] + roi[2]) / 2 <= chosen[2]
    assert chosen[1] <= (roi[1] + roi[3]) / 2 <= chosen[3]
    assert browser.run("return document.querySelectorAll('.front .point').length") == len(look["points"][3][token]) == 4
    card = browser.text("#token")
    assert f"Token {token + 1} of" in card
    assert f"{100 * look['influence'][token]:.1f} %, rank " in card
    assert "4 at this stage" in card
    assert painted(browser, "#token canvas.content") == 1
    pressed = browser.run("return document.querySelector('.bars [aria-pressed=\"true\"]').dataset.token")
    assert int(pressed) == token
    # What the other model's panel shows is the same region of the photograph.
    assert browser.run("return !document.querySelectorAll('.ghost')[1].classList.contains('gone')")
    browser.hover(browser.find("h1"), 0.5, 0.5)
    browser.wait("document.querySelector('.token.chosen') === null")
    assert "The most influential" in browser.text("#token")


def test_a_click_keeps_a_token_and_escape_lets_it_go(page: Page, browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    until_stage(browser, page.session, "g0", 3)
    browser.hover(browser.find(".bars button"), 0.5, 0.8)
    browser.find(".bars button").click()
    browser.hover(browser.find("h1"), 0.5, 0.5)
    assert ", kept" in browser.text("#token h2")
    browser.press(Keys.ESCAPE)
    browser.wait("document.querySelector('.token.chosen') === null")


def test_the_keyboard_reaches_every_token(page: Page, browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    influence = page.session.look("g0", "0")["influence"]
    order = sorted(range(TOKENS), key=lambda token: -influence[token])
    browser.wait("document.activeElement === document.body")
    for _ in range(30):
        browser.press(Keys.TAB)
        if browser.run("return document.activeElement.closest('.bars') !== null"):
            break
    walked = []
    for _ in range(TOKENS):
        walked.append(int(browser.wait("document.querySelector('.token.chosen')?.dataset.token")))
        assert f"Token {walked[-1] + 1}" in browser.run("return document.activeElement.getAttribute('aria-label')")
        browser.press(Keys.ARROW_RIGHT)
    assert walked == order


def test_two_models_are_compared(small: Small, page: Page, browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    names = browser.run("return [...document.querySelectorAll('.panel h2')].map((name) => name.title)")
    assert names == [str(small.model), str(small.other)]
    for model, last in ((0, 3), (1, 1)):
        until_stage(browser, page.session, "g0", last, model=model)
    assert [len(boxes(browser, model)) for model in (0, 1)] == [TOKENS, load(small.other).config.focusing.tokens]
    browser.find("#stage").send_keys(Keys.HOME)
    for model in (0, 1):
        until_stage(browser, page.session, "g0", 0, model=model)


def test_the_teachers_attention_is_laid_over_the_picture(page: Page, browser: Browser) -> None:
    def choose(kind: str) -> None:
        browser.run("document.querySelector(`input[name=attention][value='${arguments[0]}']`).click()", kind)

    painted_before = painted(browser, ".heat") if browser.run("return document.querySelector('.heat').width > 0") else 0
    assert painted_before == 0
    pictures = set()
    for kind in ("last", "rollout"):
        choose(kind)
        browser.until(lambda: painted(browser, ".heat") > 0.2, f"the attention by {kind}")
        pictures.add(browser.run("return document.querySelector('.heat').toDataURL()"))
        x1, y1, x2, y2 = page.session.attention("g0")["seen"]
        assert painted(browser, ".heat") == pytest.approx((x2 - x1) * (y2 - y1), abs=0.03)
    assert len(pictures) == 2
    choose("")
    browser.until(lambda: painted(browser, ".heat") == 0, "no attention")


def test_sampling_points_of_all_tokens(page: Page, browser: Browser) -> None:
    browser.find("#show-points").click()
    browser.until(lambda: painted(browser, ".dots") > 0.0005, "the sampling points")
    browser.find("#show-points").click()
    browser.until(lambda: painted(browser, ".dots") == 0, "no sampling points")


def test_neighbours_are_listed_and_opened(page: Page, browser: Browser) -> None:
    browser.wait("document.querySelectorAll('#neighbours li').length === 8")
    found = page.session.nearest("g0", "0")["results"]
    listed = browser.run(
        "return [...document.querySelectorAll('#neighbours button')].map((one) => [one.title, one.innerText.trim()])"
    )
    assert listed == [[neighbour["name"], f"{neighbour['cosine']:.3f}"] for neighbour in found]
    browser.run("document.querySelector('#neighbours button').click()")
    browser.wait(f"document.querySelector('.picture img').src.includes('{found[0]['key']}/display') && {SHOWN}")
    browser.run("document.querySelector('input[name=nearest][value=teacher]').click()")
    theirs = browser.until(lambda: page.session.nearest(found[0]["key"], "teacher").get("results"), "the teacher's neighbours")
    browser.wait("[...document.querySelectorAll('#neighbours button')].map((one) => one.title).join() === arguments[0]",
                 ",".join(neighbour["name"] for neighbour in theirs))  # fmt: skip


def test_an_unreadable_file_is_named_and_the_page_goes_on(page: Page, browser: Browser, tmp_path: Path) -> None:
    (good,) = write_images(tmp_path, 1, seed=9)
    bad = tmp_path / "notes.jpg"
    bad.write_text("not an image")
    browser.choose(bad)
    browser.wait("!document.querySelector('#message').hidden")
    assert browser.text("#message p") == "'notes.jpg' cannot be read: not an image of a known format. Choose another image."
    assert shown_key(browser) == "g0"
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
    key = shown_key(browser)
    assert page.session.describe(key) == {"key": key, "name": "large.jpg", "width": 5472, "height": 3648}
    until_stage(browser, page.session, key, 3)


def test_a_file_that_is_too_large_is_not_sent(page: Page, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    path.write_bytes(bytes(32_100_000))
    browser.requested()
    browser.choose(path)
    browser.wait("!document.querySelector('#message').hidden")
    assert browser.text("#message p").startswith("'huge.jpg' has 32.1 MB, and at most 32 MB are taken.")
    assert browser.run("return document.querySelector('#busy').hidden")
    browser.run("return fetch('/api/state'), fetch('/'), fetch('/page/page.js'), fetch('/page/style.css'), null")
    browser.run("return fetch('/page/bars.js'), fetch('/page/heat.js'), null")  # so that there is something in the log
    browser.until(lambda: browser.run("return performance.getEntriesByName(location.origin + '/page/heat.js').length"), "answers")


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
    from selenium.webdriver.common.keys import Keys

    assert small.networks.teacher is not None
    config = config_of(small, images=(small.photos / "photograph_000.jpg",))
    with Page(Session(config, networks_of(original(small.networks.teacher))), port=0, framed=False) as page:
        browser.open(page.url)
        browser.wait(SHOWN)
        browser.find("#show-points").click()
        browser.find("#stage").send_keys(Keys.HOME)
        until_stage(browser, page.session, "g0", 0)
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

    with (
        Page(
            Session(config_of(small, images=(small.photos / "photograph_000.jpg",)), small.networks), port=0, framed=framed
        ) as page,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Notebook) as notebook,
    ):
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
