"""The page in a real browser: what a person does there, and what they see."""

from pathlib import Path

import pytest

from sparseformers.saving import load
from sparseformers.viewer import Page
from tests.tiny import write_images
from tests.viewer.browser import ESCAPE, HOME, RIGHT, SHOWN, TAB, UNITS, Browser, expected_boxes
from tests.viewer.small import TOKENS, Small

pytestmark = pytest.mark.slow

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


def test_an_image_is_chosen(page: Page, browser: Browser, tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1, seed=7)
    browser.choose(path)
    browser.wait(f"document.querySelector('.picture img').alt.startsWith('{path.name}') && {SHOWN}")
    key = browser.shown_key()
    assert key.startswith("u")
    traced = page.session.trace(key, "0")
    browser.until_stage(page.session, key, 3)  # the last stage is shown first
    assert len(browser.boxes()) == TOKENS
    assert f"{TOKENS} tokens · cosine with the teacher {traced['cosine']:.3f}" in browser.text(".facts")
    assert browser.run("return document.querySelector('#gallery button').title") == path.name


def test_an_image_is_dropped(page: Page, browser: Browser, tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1, seed=8)
    path = path.rename(tmp_path / "dropped <b>here.jpg")
    browser.drop(path)
    browser.wait(f"document.querySelector('.picture img').alt.startsWith('{path.name}') && {SHOWN}")
    assert browser.run("return document.querySelector('#dropping').hidden")
    assert browser.run("return document.querySelectorAll('b').length") == 0


def test_the_slider_moves_the_regions(page: Page, browser: Browser) -> None:
    browser.until_stage(page.session, "g0", 3)
    browser.find("#stage").send_keys(HOME)
    browser.until_stage(page.session, "g0", 0)
    assert browser.text("#stage-name") == "1 of 4, start"
    browser.find("#stage").send_keys(RIGHT)
    browser.until_stage(page.session, "g0", 1)
    assert browser.run("return document.querySelector('#stage').getAttribute('aria-valuetext')") == "2 of 4, iteration 1"


def test_the_regions_glide(page: Page, browser: Browser) -> None:
    """Between two stages they are seen in between."""
    start, end = (expected_boxes(page.session.trace("g0", "0"), stage) for stage in (0, 3))
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
    browser.until_stage(page.session, "g0", 3)
    seen = [place / UNITS for place in browser.driver.execute_async_script(script, token)]
    low, high = sorted([start[token][0], end[token][0]])
    margin = 0.05 * (high - low)
    assert any(low + margin < place < high - margin for place in seen)
    browser.until_stage(page.session, "g0", 0)


def test_playing_goes_through_all_stages(page: Page, browser: Browser) -> None:
    browser.find("#play").click()
    seen = set()

    def ended() -> bool:
        seen.add(browser.text("#stage-name"))
        return len(seen) > 1 and browser.run("return !document.querySelector('#play').classList.contains('playing')")

    browser.until(ended, "the end of playing")
    seen.add(browser.text("#stage-name"))
    assert {"1 of 4, start", "4 of 4, iteration 3"} <= seen
    browser.until_stage(page.session, "g0", 3)


def test_hovering_brings_out_a_token(page: Page, browser: Browser) -> None:
    traced = page.session.trace("g0", "0")
    browser.until_stage(page.session, "g0", 3)
    picture = browser.find(".picture")
    roi = expected_boxes(traced, 3)[2]
    browser.hover(picture, (roi[0] + roi[2]) / 2, (roi[1] + roi[3]) / 2)
    token = int(browser.wait("document.querySelector('.token.chosen')?.dataset.token"))
    # The pointer is in the middle of token 2; another region may lie over it, but it is around the pointer, too.
    chosen = expected_boxes(traced, 3)[token]
    assert chosen[0] <= (roi[0] + roi[2]) / 2 <= chosen[2]
    assert chosen[1] <= (roi[1] + roi[3]) / 2 <= chosen[3]
    assert browser.run("return document.querySelectorAll('.front .point').length") == len(traced["points"][3][token]) == 4
    card = browser.text("#token")
    assert f"Token {token + 1} of" in card
    assert f"{100 * traced['influence'][token]:.1f} %, rank " in card
    assert "4 at this stage" in card
    assert browser.painted("#token canvas.content") == 1
    pressed = browser.run("return document.querySelector('.bars [aria-pressed=\"true\"]').dataset.token")
    assert int(pressed) == token
    # What the other model's panel shows is the same region of the photograph.
    assert browser.run("return !document.querySelectorAll('.ghost')[1].classList.contains('gone')")
    browser.hover(browser.find("h1"), 0.5, 0.5)
    browser.wait("document.querySelector('.token.chosen') === null")
    assert "The most influential" in browser.text("#token")


def test_a_click_keeps_a_token_and_escape_lets_it_go(page: Page, browser: Browser) -> None:
    browser.until_stage(page.session, "g0", 3)
    browser.hover(browser.find(".bars button"), 0.5, 0.8)
    browser.find(".bars button").click()
    browser.hover(browser.find("h1"), 0.5, 0.5)
    assert ", kept" in browser.text("#token h2")
    browser.press(ESCAPE)
    browser.wait("document.querySelector('.token.chosen') === null")


def test_the_keyboard_reaches_every_token(page: Page, browser: Browser) -> None:
    influence = page.session.trace("g0", "0")["influence"]
    order = sorted(range(TOKENS), key=lambda token: -influence[token])
    browser.wait("document.activeElement === document.body")
    for _ in range(30):
        browser.press(TAB)
        if browser.run("return document.activeElement.closest('.bars') !== null"):
            break
    walked = []
    for _ in range(TOKENS):
        walked.append(int(browser.wait("document.querySelector('.token.chosen')?.dataset.token")))
        assert f"Token {walked[-1] + 1}" in browser.run("return document.activeElement.getAttribute('aria-label')")
        browser.press(RIGHT)
    assert walked == order


def test_two_models_are_compared(small: Small, page: Page, browser: Browser) -> None:
    names = browser.run("return [...document.querySelectorAll('.panel h2')].map((name) => name.title)")
    assert names == [str(small.model), str(small.other)]
    for model, last in ((0, 3), (1, 0)):
        browser.until_stage(page.session, "g0", last, model=model)
    assert [len(browser.boxes(model)) for model in (0, 1)] == [TOKENS, load(small.other).config.focusing.tokens]
    browser.find("#stage").send_keys(HOME)
    for model in (0, 1):
        browser.until_stage(page.session, "g0", 0, model=model)


def test_the_teachers_attention_is_laid_over_the_picture(page: Page, browser: Browser) -> None:
    def choose(kind: str) -> None:
        browser.run("document.querySelector(`input[name=attention][value='${arguments[0]}']`).click()", kind)

    painted_before = browser.painted(".heat") if browser.run("return document.querySelector('.heat').width > 0") else 0
    assert painted_before == 0
    pictures = set()
    for kind in ("last", "rollout"):
        choose(kind)
        browser.until(lambda: browser.painted(".heat") > 0.2, f"the attention by {kind}")
        pictures.add(browser.run("return document.querySelector('.heat').toDataURL()"))
        x1, y1, x2, y2 = page.session.attention("g0")["seen"]
        assert browser.painted(".heat") == pytest.approx((x2 - x1) * (y2 - y1), abs=0.03)
    assert len(pictures) == 2
    choose("")
    browser.until(lambda: browser.painted(".heat") == 0, "no attention")


def test_sampling_points_of_all_tokens(page: Page, browser: Browser) -> None:
    browser.find("#show-points").click()
    browser.until(lambda: browser.painted(".dots") > 0.0005, "the sampling points")
    browser.find("#show-points").click()
    browser.until(lambda: browser.painted(".dots") == 0, "no sampling points")


def test_neighbours_are_listed_and_opened(page: Page, browser: Browser) -> None:
    browser.wait("document.querySelectorAll('#neighbours li').length === 8")
    found = page.session.nearest("g0", "0")["results"]
    buttons = "[...document.querySelectorAll('#neighbours button')]"
    listed = browser.run(f"return {buttons}.map((one) => [one.title, one.innerText.trim()])")
    assert listed == [[neighbour["name"], f"{neighbour['cosine']:.3f}"] for neighbour in found]
    browser.run("document.querySelector('#neighbours button').click()")
    browser.wait(f"document.querySelector('.picture img').src.includes('{found[0]['key']}/display') && {SHOWN}")
    browser.run("document.querySelector('input[name=nearest][value=teacher]').click()")
    theirs = browser.until(lambda: page.session.nearest(found[0]["key"], "teacher").get("results"), "the teacher's neighbours")
    titles = "[...document.querySelectorAll('#neighbours button')].map((one) => one.title).join()"
    browser.wait(f"{titles} === arguments[0]", ",".join(neighbour["name"] for neighbour in theirs))
