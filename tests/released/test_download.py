"""Fetching, against a server on this machine that stops, lies and refuses as asked."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from sparseformers.errors import ConfigError, WeightsError
from sparseformers.released import cache_folder, download_official
from sparseformers.released.releases import RELEASES

NAME = "sf_v1_tiny"
FILE = RELEASES[NAME].file
CONTENT = bytes(range(256)) * 4000


@dataclass
class Server:
    """What the server does, and what it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    stop_after: int | None = None
    """Bytes of a body after which it hangs up."""
    announce: int | None = None
    """The size that it claims the whole file has."""
    ranges: bool = True
    """Whether it knows ranges."""
    status: int = 200
    delay: float = 0.0
    """Seconds before it answers."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and range of each request."""


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.asked.append((self.path, wanted))
            time.sleep(server.delay)
            if server.status != 200:
                self.send_error(server.status)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
            total = len(server.content) if server.announce is None else server.announce
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(total - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.end_headers()
            self.wfile.write(server.content[start:][: server.stop_after])

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    settings = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(settings)) as running:
        settings.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield settings
        running.shutdown()
        thread.join()


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def failure(server: Server, cache: Path) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        download_official(NAME, cache, base_url=server.url)
    return caught.value


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    path = download_official(NAME, tmp_path / "cache", base_url=server.url)
    assert path == tmp_path / "cache" / FILE
    assert path.read_bytes() == CONTENT
    assert download_official(NAME, tmp_path / "cache", base_url=server.url) == path
    assert server.asked == [(f"/{FILE}", None)]
    assert names_in(tmp_path / "cache") == {FILE, f"{FILE}.lock"}


def test_an_interrupted_fetch_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.stop_after = 300_000
    error = failure(server, tmp_path)
    assert "300,000 of 1,024,000 bytes came" in error.problem
    assert "Run it again to go on" in error.remedy
    assert not (tmp_path / FILE).exists()
    assert (tmp_path / f"{FILE}.part").read_bytes() == CONTENT[:300_000]
    server.stop_after = None
    assert download_official(NAME, tmp_path, base_url=server.url).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=300000-"]
    assert names_in(tmp_path) == {FILE, f"{FILE}.lock"}


def test_a_server_without_ranges_sends_all_of_it_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.part").write_bytes(b"beginning")
    server.ranges = False
    assert download_official(NAME, tmp_path, base_url=server.url).read_bytes() == CONTENT


def test_a_fetch_that_lacks_nothing_but_its_name(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT)
    assert download_official(NAME, tmp_path, base_url=server.url).read_bytes() == CONTENT


def test_a_beginning_that_is_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT + b"more")
    assert download_official(NAME, tmp_path, base_url=server.url).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == ["bytes=1024004-", None]


def test_a_file_of_another_size_than_announced_is_none(server: Server, tmp_path: Path) -> None:
    server.announce = 2_000_000
    error = failure(server, tmp_path)
    assert "1,024,000 of 2,000,000 bytes came" in error.problem
    assert not (tmp_path / FILE).exists()


def test_a_server_that_refuses(server: Server, tmp_path: Path) -> None:
    server.status = 404
    error = failure(server, tmp_path)
    assert f"'{NAME}' could not be fetched from {server.url}/{FILE} (HTTPError: Not Found)" in error.problem
    assert f"put it at '{tmp_path / FILE}'" in error.remedy


def test_no_network(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        download_official(NAME, tmp_path, base_url="http://127.0.0.1:1")  # nothing listens there
    assert "could not be fetched" in caught.value.problem
    assert f"put it at '{tmp_path / FILE}', or give it as --from FILE" in caught.value.remedy


def test_two_that_want_the_same_file_fetch_it_once(server: Server, tmp_path: Path) -> None:
    server.delay = 0.3
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: download_official(NAME, tmp_path, base_url=server.url), range(2)))
    assert paths == [tmp_path / FILE] * 2
    assert paths[0].read_bytes() == CONTENT
    assert server.asked == [(f"/{FILE}", None)]


FETCHING = """
import sys, time
from pathlib import Path
from filelock import FileLock

path = Path(sys.argv[1])
with FileLock(f"{path}.lock"):
    print("fetching", flush=True)
    time.sleep(0.5)
    path.with_name(f"{path.name}.part").write_bytes(b"what came")
    path.with_name(f"{path.name}.part").rename(path)
"""
"""Another process that fetches a file."""


def test_another_process_s_fetching_is_waited_for(server: Server, tmp_path: Path) -> None:
    written = io.StringIO()
    with subprocess.Popen([sys.executable, "-c", FETCHING, str(tmp_path / FILE)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "fetching\n"
        path = download_official(NAME, tmp_path, base_url=server.url, console=Console(file=written, width=150))
    assert path.read_bytes() == b"what came"
    assert server.asked == []
    assert f"Waiting for another process, which is fetching {FILE}." in written.getvalue()


def test_a_process_that_was_killed_does_not_keep_others_from_going_on(server: Server, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", FETCHING, str(tmp_path / FILE)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        other.kill()
    assert (tmp_path / f"{FILE}.lock").exists()
    assert download_official(NAME, tmp_path, base_url=server.url).read_bytes() == CONTENT


def test_a_progress_bar_on_a_terminal(server: Server, tmp_path: Path) -> None:
    written = io.StringIO()
    download_official(NAME, tmp_path, base_url=server.url, console=Console(file=written, force_terminal=True, width=150))
    assert FILE in written.getvalue()
    assert "1.0/1.0 MB" in written.getvalue()


def test_the_cache_folder_may_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSEFORMERS_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("SPARSEFORMERS_CACHE")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert cache_folder() == tmp_path / "torch" / "hub" / "sparseformers"


def test_a_name_that_was_not_released(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"released no model of the name 'sf_v1_tine'\. Did you mean 'sf_v1_tiny'"):
        download_official("sf_v1_tine", tmp_path)
