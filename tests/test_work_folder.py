"""Locks and folders of work: one process at a time, whole or not at all, and known for what they are."""

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from sparseformers.errors import RunError
from sparseformers.files import locked, replacing_folder
from sparseformers.work_folder import WorkFolder, differences
from tests.refusals import refused

HOLD = """
import os, sys, time
from pathlib import Path
from sparseformers.files import locked
with locked(Path(sys.argv[1])) as free:
    if os.fork():
        print(free, flush=True)
    time.sleep(600)
"""


@dataclass(frozen=True)
class Folder(WorkFolder):
    KIND: ClassVar[str] = "work"
    MANIFEST: ClassVar[str] = "manifest.json"


@contextmanager
def other_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock, with a forked child that goes on when it is killed."""
    words = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout.readline() == "True\n"
        try:
            yield process
        finally:
            os.killpg(process.pid, 9)


def is_free(path: Path) -> bool:
    with locked(path) as free:
        return free


class TestLocked:
    def test_by_another_process__free_when_that_is_killed_though_its_child_lives(self, tmp_path: Path) -> None:
        path = Folder(tmp_path).lock
        with other_process(path) as other:
            assert not is_free(path)
            with pytest.raises(RunError, match="is in use by another process"), Folder(tmp_path).held():
                pass
            other.kill()
            other.wait()
            assert is_free(path)

    def test_by_this_process__is_refused_too_and_stays_held(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        with locked(path) as free:
            assert free
            assert not is_free(path)
            assert not is_free(tmp_path / "." / "lock")
            command = [sys.executable, "-c", HOLD.replace("time.sleep(600)", ""), str(path)]
            assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.startswith("False")
        assert is_free(path)

    def test_wait__comes_when_the_holder_is_done(self, tmp_path: Path) -> None:
        path, came = tmp_path / "lock", []

        def wait() -> None:
            with locked(path, wait=True) as free:
                came.append(free)

        with locked(path):
            thread = threading.Thread(target=wait)
            thread.start()
            thread.join(0.3)
            assert came == []
            path.unlink()  # as held folders do
        thread.join(10)
        assert came == [True]


class TestHeld:
    def test_work_that_was_begun_stays_and_what_was_not_goes(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path / "a" / "work")
        with folder.held():
            (folder.path / "half").write_text("")
        assert not folder.path.exists()
        with folder.held():
            folder.write_manifest({"content": {"lr": 1}})
            (folder.path / ".x.part").mkdir()
        with folder.held(), pytest.raises(RunError, match="is in use"), folder.held():
            pass
        assert [path.name for path in folder.path.iterdir()] == ["manifest.json"]
        with folder.held():
            folder.clear()
        assert not folder.path.exists()

    def test_a_folder_of_something_else_is_refused_and_left_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("mine")
        with refused(RunError, "is not empty and holds no work", "Choose another --out."), Folder(tmp_path).held():
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
        for place in (tmp_path / "mine.txt", tmp_path / "mine.txt" / "below"):
            with pytest.raises(RunError, match=r"is a file|cannot be written \(Not a directory\)"), Folder(place).held():
                pass


def test_writing__a_full_disk_says_how_to_go_on(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    remedy = "Free some space, then give the same command again: it goes on where it stopped."
    with refused(RunError, "There is no room left to write the folder", remedy), folder.writing(room_only=True):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="Input/output"), folder.writing(room_only=True):
        raise OSError(errno.EIO, "Input/output error")
    with pytest.raises(RunError, match=r"cannot be written \(Input/output error\)"), folder.writing():
        raise OSError(errno.EIO, "Input/output error")


def test_differences__are_told_by_name_and_short_ones_by_value(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write_manifest({"lr": 0.1, "sizes": (1, 2), "data": {"a": 1}})
    changes = differences(folder.read_manifest(), {"lr": 0.2, "sizes": (1, 2), "data": {"a": 2}, "new": "x"})
    assert changes == ["lr (0.1 then, 0.2 now)", "data", "new (None then, x now)"]
    with pytest.raises(RunError, match=r"differs from this command in: .*lr \(0\.1 then, 0\.2 now\)"):
        folder.refuse_differences(changes)
    folder.manifest.write_text("[1")
    with pytest.raises(RunError, match=r"manifest\.json' cannot be read"):
        folder.read_manifest()


@pytest.mark.parametrize("keep_existing", [False, True])
def test_replacing_folder__is_there_whole_or_not_at_all(tmp_path: Path, keep_existing: bool) -> None:
    path = tmp_path / "below" / "folder"
    for content in ("first", "second"):
        with replacing_folder(path, keep_existing=keep_existing) as made:
            (made / "file").write_text(json.dumps(content))
    assert (path / "file").read_text() == ('"first"' if keep_existing else '"second"')
    with pytest.raises(KeyboardInterrupt), replacing_folder(path) as made:
        raise KeyboardInterrupt
    assert [item.name for item in path.parent.iterdir()] == ["folder"]
