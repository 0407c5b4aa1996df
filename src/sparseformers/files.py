"""Files and folders that are written whole or not at all, and locks that are free again when their process is gone."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})  # errors of a full disk, quota or file
SECONDS_BETWEEN_ATTEMPTS = 0.1  # between two attempts to take a lock
UMASK = os.umask(0o077)
"""What the user keeps others from, read when this module is imported: there is no other way than to set it."""
os.umask(UMASK)
_HELD: dict[tuple[int, str], object] = {}  # (process, file) of our locks: the system would let us take them a second time


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed onto it at the end, removed if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        open_to_others(temporary)  # mkstemp keeps them from reading it
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """A temporary folder to fill, renamed onto ``path`` (with ``keep_existing`` unless one is there by then), else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    made = aside / "made"
    try:
        made.mkdir()
        yield made
        for file in made.rglob("*"):  # some libraries keep others from reading what they write
            open_to_others(file)
        synchronise(made)
        if path.is_dir() and not keep_existing:
            path.rename(aside / "replaced")
        try:
            made.rename(path)
        except OSError:
            if not (keep_existing and path.is_dir()):
                raise
        synchronise(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def open_to_others(path: Path) -> None:
    """Gives a file, or a folder, the permissions that the user's umask means."""
    path.chmod((0o777 if path.is_dir() else 0o666) & ~UMASK)


def is_leftover(path: Path) -> bool:
    """Whether a file or folder is one that a process left half-written when it was killed."""
    return path.name.startswith(".") and path.suffix == ".part"


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left half-written; to be called where no other process writes to the folder."""
    for path in filter(is_leftover, folder.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum.update(chunk)
    return checksum.hexdigest()


def synchronise(path: Path) -> None:
    """Waits until a file, or the names in a folder, outlast a loss of power; raises OSError if the disk is full."""
    if path.is_dir() and os.name == "nt":  # which has no such thing for folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Holds a lock on a file, which is made if need be; gives False where another process or thread holds it.

    The lock goes with the process, however that ends. It is one of fcntl's record locks, not the filelock library's: its flock
    locks are inherited by forked processes that read images, which outlive a killed one, and its soft locks outlive a process
    whose machine or container never comes back under the same name. The file may be removed while the lock is held. Raises
    OSError if it cannot be made, or its file system has no locks.
    """
    key, token = (os.getpid(), os.path.realpath(path)), object()
    handle = None
    try:
        while True:
            # Where this process holds the lock the file is not even opened: to close it would free the lock.
            if _HELD.setdefault(key, token) is token:
                handle = _take(path)
            if handle is not None or not wait:
                break
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)
        if _HELD.get(key) is token:
            del _HELD[key]


def _take(path: Path) -> int | None:
    """The file opened and locked; None where another process holds the lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        taken = False
        try:
            _lock(handle)
            # If the one that held it before has removed the file, the lock is on what nobody else will open.
            taken = path.exists() and os.path.samestat(os.fstat(handle), path.stat())
            if taken:
                return handle
        except (BlockingIOError, PermissionError):
            return None
        finally:
            if not taken:
                os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def cut(text: str, longest: int) -> str:
    """Text of at most that many letters, without the middle of a longer one."""
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def printable(name: str) -> str:
    """A file name whose control characters, marks of direction and bytes that are no UTF-8 are written as escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)
