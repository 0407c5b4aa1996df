"""A small student for all tests of the page, and the page in a real browser."""

import urllib.parse
from collections.abc import Iterator

import pytest

from sparseformers.viewer import Page, Session
from tests.viewer.browser import SHOWN, Browser, chromium
from tests.viewer.small import Small, config_of, make_small


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("view"))


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
