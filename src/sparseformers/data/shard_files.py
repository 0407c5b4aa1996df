"""Shards as files on this machine, and their indices.

Local shards are read where they lie. Others are fetched whole, and compressed ones unpacked, into a folder that keeps those
used last; webdataset fetches from the addresses.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sparseformers.data.shard_index import (
    MOST_INDEX_BYTES,
    SIDECAR,
    ShardIndex,
    index_beside,
    parse_index,
    read_index,
    scan,
    write_index,
)
from sparseformers.data.shards import fetch, is_local, opened, unreachable
from sparseformers.errors import DataError
from sparseformers.files import NO_ROOM, locked

WAITS = (1.0, 4.0, 16.0)
"""Seconds to wait before each new attempt at a shard that cannot be reached."""
KEPT_INDICES = 32
"""Indices that a process keeps in memory, those used last."""
BLOCK = 2**20
"""Bytes that are unpacked at a time."""

_UNPACKERS: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
_Result = TypeVar("_Result")


def default_shard_folder() -> Path:
    """The user's folder for what can be made again at any time."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "sparseformers" / "shards"


class ShardFiles:
    """Local files of shards, and their indices.

    Args:
        folder: for copies of shards that are fetched or unpacked, and for indices of shards that have none beside them.
        most_bytes: of copies; those that were used least lately go first.
        waits: seconds before each new attempt at what cannot be reached.
    """

    def __init__(self, folder: Path, *, most_bytes: int, waits: Sequence[float] = WAITS) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self.waits = tuple(waits)
        self._indices: OrderedDict[str, ShardIndex] = OrderedDict()
        self._unpackers: dict[str, Callable[..., Any] | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Another process begins without what this one keeps in memory."""
        return {**vars(self), "_indices": OrderedDict()}

    def index(self, shard: str) -> ShardIndex:
        """The index of a shard: from the file beside it, from what is known from earlier, or from its headers.

        Raises:
            DataError: if the shard cannot be reached.
        """
        index = self._indices.pop(shard, None)
        if index is None:
            index = self._retrying(shard, lambda: self._find_index(shard))
        self._indices[shard] = index
        if len(self._indices) > KEPT_INDICES:
            self._indices.popitem(last=False)
        return index

    def read(self, shard: str, start: int, size: int) -> bytes:
        """Bytes of an unpacked shard, fewer than ``size`` where it ends before them.

        Raises:
            DataError: if the shard cannot be reached.
        """

        def at(path: Path) -> bytes:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(size)

        return self._retrying(shard, lambda: self._on_file(shard, at))

    def state(self, shard: str) -> list[int] | None:
        """Size and time of change of a local shard; None for others, which are taken to stay what they are."""
        if not is_local(shard):
            return None
        status = Path(shard).stat()
        return [status.st_size, status.st_mtime_ns]

    def is_copied(self, shard: str) -> bool:
        """Whether a shard is not read where it lies, but fetched or unpacked first."""
        if is_local(shard) and shard not in self._unpackers:
            self._unpackers[shard] = _unpacker(Path(shard))
        return not is_local(shard) or self._unpackers[shard] is not None

    def _find_index(self, shard: str) -> ShardIndex:
        state = self.state(shard)
        beside = None if state is None else index_beside(Path(shard), *state)
        if beside is not None:
            return beside
        known = self.folder / f"{_digest(shard, state)}.index.json"
        with self._lock(known.name):
            index = read_index(known)
            if index is not None:
                return index
            index = self._beside_address(shard) if state is None else None
            if index is None:
                index = self._on_file(shard, scan)
            with self._writing():
                write_index(known, index)
        return index

    def _beside_address(self, shard: str) -> ShardIndex | None:
        """The index beside a shard that is an address; None if there is none to be had."""
        if shard.startswith("pipe:"):
            return None
        with contextlib.suppress(OSError), contextlib.closing(opened(f"{shard}{SIDECAR}")) as file:
            return parse_index(file.read(MOST_INDEX_BYTES))
        return None

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
        """The shard as an uncompressed file, fetched and unpacked if need be."""
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
        """Makes the copy aside, so that a part of it is never read."""
        with ExitStack() as stack:
            with self._writing():
                aside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=self.folder)))
            path = Path(shard)
            if not is_local(shard):
                path = aside / "fetched"
                with self._writing(only=True):
                    fetch(shard, path)
            if (unpacker := _unpacker(path)) is not None:
                with unpacker(path) as packed:
                    path = self._unpacked(packed, aside / "unpacked", shard)
            self._require_fits(path.stat().st_size, shard)
            os.replace(path, copy)

    def _make_room(self, needed: Path) -> None:
        """Removes copies, those that were used least lately first, but never ``needed``.

        webdataset's own cleanup would remove what other processes are fetching.
        """
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

    def _unpacked(self, packed: Any, path: Path, shard: str) -> Path:
        """Unpacks to ``path`` all there is before a damage, which is found when the copy is looked at."""
        size = 0
        with self._writing(), path.open("wb") as file:
            while block := _next_block(packed):
                size += len(block)
                self._require_fits(size, shard)
                file.write(block)
        return path

    def _require_fits(self, size: int, shard: str) -> None:
        if size > self.most_bytes:
            raise DataError(
                f"The shard '{shard}' has more than {self.most_bytes / 2**30:.3g} GiB.",
                "Raise --shard-cache-gb, or make smaller shards, with sparseformers pack for example.",
            )

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with ExitStack() as stack:
            with self._writing():
                (self.folder / "locks").mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.folder / "locks" / f"{name}.lock", wait=True))
            yield

    @contextmanager
    def _writing(self, *, only: bool = False) -> Iterator[None]:
        """Turns errors of the folder's file system into an error with a remedy.

        Args:
            only: whether other errors may come, too, and are to be left as they are.
        """
        try:
            yield
        except OSError as error:
            if only and error.errno not in NO_ROOM and not str(error.filename or "").startswith(str(self.folder)):
                raise
            raise DataError(
                f"Shards cannot be kept in '{self.folder}' ({error.strerror or error}).",
                "Free some space there if it is full, lower --shard-cache-gb, or name another folder with --shard-cache.",
            ) from error

    def _retrying(self, shard: str, attempt: Callable[[], _Result]) -> _Result:
        """The result of ``attempt``, after as many attempts as it takes and there are waits for."""
        waits = list(self.waits)
        while True:
            try:
                return attempt()
            except OSError as error:
                if not waits or (is_local(shard) and isinstance(error, FileNotFoundError)):
                    raise unreachable(shard, error) from error
                time.sleep(waits.pop(0))


def _next_block(packed: Any) -> bytes:
    """What comes next of a compressed file; nothing where it is damaged."""
    try:
        return bytes(packed.read1(BLOCK))  # which gives what there is before a damage
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return b""


def _unpacker(path: Path) -> Callable[..., Any] | None:
    """The function that opens a compressed file; None for one that is not compressed."""
    with path.open("rb") as file:
        beginning = file.read(6)
    return next((unpacker for magic, unpacker in _UNPACKERS if beginning.startswith(magic)), None)


def _digest(shard: str, state: list[int] | None) -> str:
    """A name for what belongs to a shard as it is."""
    text = json.dumps([shard, state])
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
