"""A lock that one process holds, and that is free again when that process is gone, however it went."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(handle: int) -> None:
        # Not flock, whose locks processes that were forked go on holding: those that read images outlive a killed one.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Holds a lock on a file, which is made if need be; gives False where another process holds it.

    Args:
        path: the file; it may be removed while the lock is held.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                _take(handle)
            except OSError:
                yield False
                return
            if not _is_at(handle, path):
                continue  # removed by who held it before: the lock is on what nobody else will open
            yield True
            return
        finally:
            os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
