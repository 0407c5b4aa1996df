"""Shards as files on this machine, and their indices: the places of their images, so that any of them can be read alone.

Local shards are read where they lie. Others are fetched whole by webdataset, and compressed ones unpacked, into a folder that
keeps those used last. An index is made from the headers alone and kept as JSON; ``sparseformers pack`` writes it, too.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import json
import lzma
import os
import tempfile
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sparseformers.data.shards import FORMAT, MOST_BYTES, ShardIndex, fetch, is_local, opened, scan, unreachable
from sparseformers.errors import DataError
from sparseformers.files import NO_ROOM, locked, write_text

SIDECAR = ".json"  # added to a shard's name for that of the index beside it
MOST_INDEX_BYTES = 2**30  # no more of an index is read: an address may hold anything
WAITS = (1.0, 4.0, 16.0)  # seconds before each new attempt at a shard that cannot be reached
KEPT_INDICES = 32  # indices that a process keeps in memory, those used last
BLOCK = 2**20  # bytes that are unpacked at a time

_UNPACKERS: Mapping[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_Result = TypeVar("_Result")


def default_shard_folder() -> Path:
    """The user's folder for what can be made again at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sparseformers" / "shards"


def write_index(path: Path, index: ShardIndex) -> None:
    """Writes an index whole or not at all."""
    write_text(path, index.text() + "\n")


def parse_index(text: str | bytes) -> ShardIndex | None:
    """The index in a file's text; None for anything else, or one that contradicts itself."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            return None
        size = int(content["bytes"])
        index = ShardIndex.of(content["members"], content["problems"], size)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    inside = (index.starts >= 0) & (index.sizes >= 0) & (index.sizes <= MOST_BYTES) & (index.starts <= size - index.sizes)
    return index if bool(inside.all()) else None


def read_index(path: Path) -> ShardIndex | None:
    """The index in a file; None if there is none."""
    try:
        with path.open("rb") as file:
            return parse_index(file.read(MOST_INDEX_BYTES))
    except OSError:
        return None


class ShardFiles:
    """Local files and indices of shards: ``folder`` holds at most ``most_bytes`` of copies, ``waits`` are before new attempts."""

    def __init__(self, folder: Path, *, most_bytes: int, waits: Sequence[float] = WAITS) -> None:
        self.folder, self.most_bytes, self.waits = folder, most_bytes, tuple(waits)
        self._indices: OrderedDict[str, ShardIndex] = OrderedDict()
        self._unpackers: dict[str, Callable[..., Any] | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_indices": OrderedDict()}

    def index(self, shard: str) -> ShardIndex:
        """The index of a shard: from beside it, from earlier, or from its headers; DataError if it cannot be reached."""
        index = self._indices.pop(shard, None)
        if index is None:
            index = self._retrying(shard, lambda: self._find_index(shard))
        self._indices[shard] = index
        if len(self._indices) > KEPT_INDICES:
            self._indices.popitem(last=False)
        return index

    def read(self, shard: str, start: int, size: int) -> bytes:
        """Bytes of an unpacked shard, fewer if it ends before; raises DataError if it cannot be reached."""

        def at(path: Path) -> bytes:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(size)

        return self._retrying(shard, lambda: self._on_file(shard, at))

    def state(self, shard: str) -> list[int] | None:
        """Size and time of change of a local shard; None for an address, which is taken to stay the same."""
        if not is_local(shard):
            return None
        status = Path(shard).stat()
        return [status.st_size, status.st_mtime_ns]

    def is_copied(self, shard: str) -> bool:
        """Whether a shard is fetched or unpacked before it is read."""
        if is_local(shard) and shard not in self._unpackers:
            self._unpackers[shard] = _unpacker(Path(shard))
        return not is_local(shard) or self._unpackers[shard] is not None

    def _find_index(self, shard: str) -> ShardIndex:
        state = self.state(shard)
        if state is not None:
            beside = Path(f"{shard}{SIDECAR}")
            index = read_index(beside)
            # A tar file has room at its end, so something may have been added to one of the same size.
            if index is not None and index.bytes == state[0] and beside.stat().st_mtime_ns >= state[1]:
                return index
        known = self.folder / f"{_digest(shard, state)}.index.json"
        with self._lock(known.name):
            index = read_index(known)
            if index is not None:
                return index
            if not is_local(shard) and not shard.startswith("pipe:"):
                with contextlib.suppress(OSError), contextlib.closing(opened(f"{shard}{SIDECAR}")) as file:
                    index = parse_index(file.read(MOST_INDEX_BYTES))
            if index is None:
                index = self._on_file(shard, scan)
            with self._writing():
                write_index(known, index)
        return index

    def _on_file(self, shard: str, action: Callable[[Path], _Result]) -> _Result:
        """The result of ``action`` on the shard as an uncompressed file on this machine."""
        while True:
            path = self._local(shard)
            try:
                return action(path)
            except (FileNotFoundError, DataError):
                if not self.is_copied(shard) or path.exists():
                    raise
                # Another process, or thread, made room just now.

    def _local(self, shard: str) -> Path:
        if not self.is_copied(shard):
            return Path(shard)
        copy = self.folder / f"{_digest(shard, self.state(shard))}.tar"
        if not copy.is_file():
            with self._lock(copy.name):
                if not copy.is_file():
                    self._copy(shard, copy)
                    self._make_room(copy)
        with contextlib.suppress(OSError):
            os.utime(copy)  # it is in use
        return copy

    def _copy(self, shard: str, copy: Path) -> None:
        """Makes the copy under another name and renames it, so that a part of it is never read."""
        with ExitStack() as stack:
            with self._writing():
                aside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=self.folder)))
            path = Path(shard)
            if not is_local(shard):
                path = aside / "fetched"
                with self._writing(only=True):
                    fetch(shard, path)
            if (unpacker := _unpacker(path)) is not None:
                with unpacker(path) as packed, self._writing(), (aside / "unpacked").open("wb") as file:
                    while block := _next_block(packed):
                        self._require_fits(file.tell() + len(block), shard)
                        file.write(block)
                path = aside / "unpacked"
            self._require_fits(path.stat().st_size, shard)
            os.replace(path, copy)

    def _make_room(self, needed: Path) -> None:
        """Removes the copies used least lately, but never ``needed`` (webdataset's own cleanup removes what others fetch)."""
        with self._lock("room"):
            copies = []
            for path in self.folder.glob("*.tar"):
                with contextlib.suppress(FileNotFoundError):
                    copies.append((path.stat().st_mtime, path, path.stat().st_size))
            total = sum(size for _, _, size in copies)
            for _, path, size in sorted(copies):
                if total > self.most_bytes and path != needed:
                    with contextlib.suppress(OSError):  # Windows keeps what is open
                        path.unlink()
                        total -= size

    def _require_fits(self, size: int, shard: str) -> None:
        if size > self.most_bytes:
            problem = f"The shard '{shard}' has more than {self.most_bytes / 2**30:.3g} GiB."
            raise DataError(problem, "Raise --shard-cache-gb, or make smaller shards, with sparseformers pack for example.")

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with ExitStack() as stack:
            with self._writing():
                (self.folder / "locks").mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.folder / "locks" / f"{name}.lock", wait=True))
            yield

    @contextmanager
    def _writing(self, *, only: bool = False) -> Iterator[None]:
        """Turns errors of the folder's file system into one with a remedy; with ``only``, leaves errors of other places."""
        try:
            yield
        except OSError as error:
            if only and error.errno not in NO_ROOM and not str(error.filename or "").startswith(str(self.folder)):
                raise
            problem = f"Shards cannot be kept in '{self.folder}' ({error.strerror or error})."
            remedy = "Free some space there if it is full, lower --shard-cache-gb, or name another folder with --shard-cache."
            raise DataError(problem, remedy) from error

    def _retrying(self, shard: str, attempt: Callable[[], _Result]) -> _Result:
        waits = list(self.waits)
        while True:
            try:
                return attempt()
            except OSError as error:
                if not waits or (is_local(shard) and isinstance(error, FileNotFoundError)):
                    raise unreachable(shard, error) from error
                time.sleep(waits.pop(0))


def _next_block(packed: Any) -> bytes:
    """The next bytes of a compressed file; none from its damage on, which the copy's index tells."""
    try:
        return bytes(packed.read1(BLOCK))  # which gives what there is before a damage
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return b""


def _unpacker(path: Path) -> Callable[..., Any] | None:
    """The function that opens a compressed file; None for one that is not compressed."""
    with path.open("rb") as file:
        beginning = file.read(6)
    return next((unpacker for magic, unpacker in _UNPACKERS.items() if beginning.startswith(magic)), None)


def _digest(shard: str, state: list[int] | None) -> str:
    return hashlib.blake2b(json.dumps([shard, state]).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
