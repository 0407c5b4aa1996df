"""Reading processes: whatever goes wrong with them, the work ends soon, says why, and leaves no process behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest
import torch
from PIL import Image

from sparseformers.data import ImageViews, Loader, batch_loader, loading, training_view, views_in_order
from sparseformers.data.dataset import SampleStream
from sparseformers.errors import LoadingError
from tests.refusals import refused

SECONDS = 20.0  # within which a command ends; 10 on a machine that does nothing else
BEGIN = """
import os, signal, sys, time
from pathlib import Path
import torch
from sparseformers.data import ImageViews, SampleStream, batch_loader, loading, training_view

def batches(workers=2, total=400):
    views = ImageViews(sorted(Path(sys.argv[1]).glob("*.png")), training_view((64, 64), "default"), seed=0)
    return batch_loader(views, SampleStream(len(views), batch_size=4, seed=0, total=total), workers=workers)

def told(of):
    try:
        for batch in of:
            time.sleep(0.01)
    except Exception as error:
        print(type(error).__name__, error, time.time())
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def run(images: list[Path], script: str, *before: str, sent: signal.Signals | None = None, after: float = 0.0) -> Ended:
    """Runs a script in a process group of its own, and sends the group a signal some seconds after its first line.

    It has to end within ``SECONDS`` from the signal, or else from the last word that it says, which is a time.
    """
    command = [*before, sys.executable, "-c", BEGIN + script, str(images[0].parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        if sent is not None:
            process.stdout.readline()
            time.sleep(after)
            os.killpg(process.pid, sent)
        start = time.time()
        try:
            out, err = process.communicate(timeout=100)
        finally:
            end = time.time()
            while (left := living(process.pid)) and time.time() < end + SECONDS:
                time.sleep(0.1)  # a process whose parent is gone needs some seconds to see it
            if left:
                os.killpg(process.pid, signal.SIGKILL)
    assert left == []
    assert end - (start if sent is not None else float((out.split() or [start])[-1])) < SECONDS, err
    return Ended(process.returncode, out, err)


def living(group: int) -> list[psutil.Process]:
    """The processes of a group, but for those that nobody has asked how they ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            found += [process] * (os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE)
    return found


def in_little_memory(size: str) -> list[str]:
    """The beginning of a command that has only so much shared memory."""
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    begin = ["unshare", "--mount", "bash", "-c", script, "_"]
    if shutil.which("unshare") is None or subprocess.run([*begin, "true"], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    return begin


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes__ends_them_at_any_moment(photographs: list[Path], number: signal.Signals) -> None:
    script = """
print("begins", flush=True)
for batch in batches():
    time.sleep(0.02)
"""
    for delay in (0.0, 0.03, 0.5):
        ended = run(photographs, script, sent=number, after=delay)
        assert ended.code in (-number, 1, 130)
        # A reading process names itself above its traceback; this one prints several where the signal meets other errors.
        assert "\nProcess " not in f"\n{ended.err}", ended.err


def test_a_killed_process_and_an_error_between_two_batches(photographs: list[Path]) -> None:
    """The first is told where batches are waited for; the second ends the program, though a traceback keeps the loader."""
    script = """
reading = iter(batches())
next(reading)
os.kill([*loading._OPEN][0].items._workers[0].pid, signal.SIGKILL)
time.sleep(0.5)  # in which nothing may be raised
told(reading)
for batch in batches():
    print(time.time(), flush=True)
    raise OSError("as from anywhere")
"""
    ended = run(photographs, script)
    assert ended.out.startswith("LoadingError A process that reads images was killed"), ended.err
    assert (ended.code, "as from anywhere" in ended.err) == (1, True), ended.err


@pytest.mark.slow
def test_too_few_open_files__are_told(photographs: list[Path]) -> None:
    script = """
import resource
kept = [os.dup(0) for _ in range(16)]  # so numbers below 16 stay in use, while batches that came early free higher ones
reading = iter(batches(4))
next(reading)
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
told(reading)
"""
    ended = run(photographs, script)
    assert "LoadingError The 4 processes that read images ran out of open files (at most" in ended.out, ended.err


def test_little_shared_memory__makes_batches_travel_in_files_and_no_room_in_it_after_all_is_told(photographs: list[Path]) -> None:
    script = """
assert loading.batches_ahead(2, 4 * 3 * 64 * 64) == 0
here = torch.cat([batch.images for batch in batches(0, 24)])
assert torch.equal(torch.cat([batch.images for batch in batches(2, 24)]), here) and len(here) == 24
loading.batches_ahead = lambda *_: 4
told(batches())
"""
    ended = run(photographs, script, *in_little_memory("64k"))
    assert ended.out.startswith("LoadingError Batches of images did not fit into shared memory: "), ended.err
    assert "0 MiB are free in /dev/shm" in ended.out


def test_batches_ahead__follow_the_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = {"free": 64 * 2**20}
    monkeypatch.setattr(loading, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda _: SimpleNamespace(**usage))
    assert 1 <= loading.default_workers() <= 8
    batch = 32 * 3 * 224 * 224
    assert loading.batches_ahead(2, batch) == 2  # of Docker's 64 MiB a half, and room for two more
    assert loading.batches_ahead(8, batch) == 0
    assert loading.batches_ahead(0, batch) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert loading.batches_ahead(2, batch) == 0
    usage["free"] = 2**40
    assert loading.batches_ahead(2, batch) == loading.BATCHES_AHEAD
    assert loading.batches_ahead(8, 2**30) == 1  # where there is room enough, one whatever its size


def test_other_errors_stay_what_they_are(photographs: list[Path]) -> None:
    def broken(image: Image.Image) -> torch.Tensor:
        raise ZeroDivisionError("in a view")

    for workers in (0, 1):
        with pytest.raises(ZeroDivisionError, match="in a view"):
            list(views_in_order(ImageViews(photographs, broken, seed=0), epochs=1, batch_size=2, workers=workers))


def test_an_iteration_that_is_given_up__ends_its_processes(photographs: list[Path]) -> None:
    views = ImageViews(photographs, training_view((16, 16), "default"), seed=0)
    batches: Loader = batch_loader(views, SampleStream(7, batch_size=2, seed=0, total=None), workers=1)
    for _ in batches:
        (reading,) = loading._OPEN
        worker = reading.items._workers[0]
        assert worker.is_alive()
        break
    assert not loading._OPEN
    assert not worker.is_alive()


def test_processes_that_never_begin__are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "get_start_method", lambda: "spawn")
    reading = loading._Reading(torch.utils.data.DataLoader([0], num_workers=2), 1)
    error = reading._explained(RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly"))
    with refused(LoadingError, "ended as they started", "if __name__"):
        raise error  # type: ignore[misc]
