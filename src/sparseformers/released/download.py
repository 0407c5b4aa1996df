"""Fetching the authors' released files: into a cache, with a progress bar, and from where an earlier attempt stopped."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import torch
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from sparseformers.errors import WeightsError
from sparseformers.released.releases import RELEASE_URL, release

CACHE_VARIABLE = "SPARSEFORMERS_CACHE"
"""Environment variable that names another cache folder."""
PATIENCE = 30.0
"""Seconds to wait for a sign of life from the server."""
CHUNK = 1 << 20
"""Bytes to read at a time."""


def cache_folder() -> Path:
    """Where fetched files are kept: the folder in ``SPARSEFORMERS_CACHE``, or ``sparseformers`` in PyTorch Hub's folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(torch.hub.get_dir()) / "sparseformers"


def download_official(
    name: str, cache: str | Path | None = None, *, base_url: str = RELEASE_URL, console: Console | None = None
) -> Path:
    """The file that the authors released of a named size; fetched unless it is in the cache already.

    What an interrupted attempt has fetched stays in the cache as ``FILE.part``, and the next one goes on from there. Of several
    processes that want the same file one fetches it, and the others wait for it.

    Args:
        name: such as ``sf_base_augreg``.
        cache: folder to keep it in; :func:`cache_folder` by default.
        base_url: where the files lie.
        console: for the progress bar; standard error by default.

    Raises:
        ConfigError: if no model of the name was released.
        WeightsError: if the file cannot be fetched or has another size than announced, with how to fetch it by hand.
    """
    file = release(name).file
    path = (cache_folder() if cache is None else Path(cache)) / file
    if path.is_file():
        return path
    url, console = f"{base_url}/{file}", console or Console(stderr=True)
    with _fetching(url, path, name), _alone(path, console):
        if not path.is_file():  # another process may have fetched it meanwhile
            part = path.with_name(f"{file}.part")
            total = _fetch(url, part, console)
            _check_size(part, total)
            os.replace(part, path)
    return path


@contextmanager
def _alone(path: Path, console: Console) -> Iterator[None]:
    """Keeps other processes from fetching ``path`` at the same time; waits for one that does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock")  # it stays: to remove it would let two processes hold different ones
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print(f"Waiting for another process, which is fetching {path.name}.", highlight=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Answer(NamedTuple):
    """The beginning of what a server answers."""

    body: http.client.HTTPResponse
    start: int
    """First byte of the file that the body holds."""
    total: int | None
    """Bytes of the whole file, where announced."""


def _fetch(url: str, part: Path, console: Console) -> int | None:
    """Completes ``part`` from ``url``; returns the size that the whole file should have, where announced."""
    have = part.stat().st_size if part.exists() else 0
    try:
        answer = _ask(url, have)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if have and have == _total(error.headers.get("Content-Range")):
            return have  # all of it had come, but for the renaming
        answer = _ask(url, 0)
    with answer.body, part.open("ab" if answer.start else "wb") as file, _progress_bar(console) as bar:
        task = bar.add_task(part.name.removesuffix(".part"), completed=answer.start, total=answer.total)
        for chunk in _chunks(answer.body):
            file.write(chunk)
            bar.advance(task, len(chunk))
    return answer.total


def _ask(url: str, start: int) -> _Answer:
    """Asks for the file from the byte ``start`` on; the answer may begin with its first byte all the same."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    body = urllib.request.urlopen(request, timeout=PATIENCE)
    if body.status == http.HTTPStatus.PARTIAL_CONTENT:
        return _Answer(body, start, _total(body.headers.get("Content-Range")))
    length = body.headers.get("Content-Length")
    return _Answer(body, 0, None if length is None else int(length))


def _total(content_range: str | None) -> int | None:
    """The size of the whole file in a header such as ``bytes 5-9/10`` or ``bytes */10``."""
    found = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", content_range or "")
    return None if found is None else int(found[1])


def _chunks(body: IO[bytes]) -> Iterator[bytes]:
    """What a body holds, until its end or the end of the connection."""
    while chunk := body.read(CHUNK):
        yield chunk


def _progress_bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _check_size(part: Path, total: int | None) -> None:
    """Raises unless the file has the size announced; what is too large cannot be gone on with, and is removed."""
    size = part.stat().st_size
    if total is None or size == total:
        return
    if size > total:
        part.unlink()
    raise OSError(f"{size:,} of {total:,} bytes came")


@contextmanager
def _fetching(url: str, path: Path, name: str) -> Iterator[None]:
    """Turns whatever can go wrong on the way into one error that says how to go on."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError and time-outs are OSErrors
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"The released weights of '{name}' could not be fetched from {url} ({type(error).__name__}: {reason}).",
            f"Run it again to go on; or fetch that file by hand and put it at '{path}', or give it as --from FILE (source=FILE).",
        ) from error
