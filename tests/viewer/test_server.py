import json
import socket
import sys
import urllib.error
import urllib.request
from contextlib import closing

import pytest

pytest.importorskip("uvicorn")

import sparseformers
from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.viewer import Page, Session, ViewConfig
from sparseformers.viewer.server import free_port
from tests.refusals import refused
from tests.viewer.small import Small, config_of


def taken_port() -> socket.socket:
    """A port with someone else on it."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as response:
        content: bytes = response.read()
        return content


class TestPage:
    def test_is_served_until_it_is_closed(self, small: Small) -> None:
        with Page(Session(config_of(small, neighbours=small.photos), small.networks), port=0, framed=False) as page:
            assert page.url == f"http://127.0.0.1:{page.port}/"
            assert page._socket.getsockname()[0] == "127.0.0.1"  # on this machine only
            assert b"<!doctype html>" in read(page.url)
            assert json.loads(read(f"{page.url}api/state"))["images"] == 13
            assert page.open
            page.session.indices["0"]._thread.join(60)
            assert page.session.indices["0"].ready  # which nobody has asked for yet
        assert not page.open
        with pytest.raises(urllib.error.URLError):
            read(page.url)
        page.close()  # once more does no harm
        free_port(page.port).close()

    def test_takes_the_next_port_if_one_is_in_use(self, small: Small) -> None:
        with closing(taken_port()) as other:
            port = other.getsockname()[1]
            with Page(Session(config_of(small), small.networks), port=port, framed=False) as page:
                assert port < page.port <= port + 50
                assert page.asked_port == port
                assert json.loads(read(f"{page.url}api/state"))["images"] == 13


class TestView:
    def test_shows_itself_in_a_notebook(self, small: Small) -> None:
        with sparseformers.view(small.model, [small.photos]) as page:
            shown = page._repr_html_()
            assert f'<iframe src="{page.url}"' in shown
            with urllib.request.urlopen(page.url, timeout=20) as response:
                assert "http://localhost:*" in response.headers["Content-Security-Policy"]
            assert page.url in repr(page)
        assert "closed" in page._repr_html_()
        assert "iframe" not in page._repr_html_()

    def test_its_settings_are_those_of_the_command(self) -> None:
        with pytest.raises(ConfigError, match=r"unknown key 'megapixel'\. Did you mean 'megapixels'"):
            sparseformers.view("runs/first", megapixel=9)

    def test_without_the_extra(self, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
        for package in ("uvicorn", "starlette"):  # which is asked for first
            monkeypatch.setitem(sys.modules, package, None)
            with pytest.raises(MissingExtraError, match=rf"'{package}' is not installed\. .*sparseformers\[view\]"):
                sparseformers.view(small.model)


def test_ports_that_are_in_use_or_may_not_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(taken_port()) as other, pytest.raises(ConfigError, match="are all in use"):
        free_port(other.getsockname()[1], tried=1)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with refused(ConfigError, "Port 80 cannot be used (permission denied).", "Use one from 1024 up"):
        free_port(80)


def test_limits() -> None:
    for option, value, range_ in (
        ("port", -1, "in [0, 65535]"),
        ("port", 65536, "in [0, 65535]"),
        ("upload_megabytes", 0.0, "above 0"),
        ("megapixels", 0.0, "in (0, 178]"),
        ("megapixels", 200.0, "in (0, 178]"),
        ("uploads_kept", 0, "at least 1"),
    ):
        with refused(ConfigError, f"--{option.replace('_', '-')} must be {range_}, not {value}."):
            ViewConfig(run="a", **{option: value})  # type: ignore[arg-type]
    config = ViewConfig(run="a", upload_megabytes=1.5, megapixels=0.25)
    assert (config.most_bytes, config.most_pixels) == (1_500_000, 250_000)
