"""A run that is killed at random moments, also while it saves, ends as if nothing had happened."""

import json
import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from sparseformers.cli.main import main
from sparseformers.train import RunFolder
from sparseformers.train.checkpoint import fault_of
from tests.train import ranks
from tests.train.runs import FOCUSING, command_line, without_times

PATIENCE = 300.0  # seconds after which an attempt that nothing happens in is given up


class Happened(NamedTuple):
    """What came of it: how many attempts were killed, how many of these while they saved, and how the last one ended."""

    killed: int
    while_saving: int
    code: int
    printed: str


def run_command(arguments: Sequence[str]) -> int:
    """The command line as in a process that a shell has started: reading processes are its own, and end with it."""
    multiprocessing.set_start_method(None, force=True)
    torch.set_num_threads(1)
    return main(arguments)


def unfinished(run: RunFolder) -> set[str]:
    """Names of what is being written."""
    return {path.name for path in run.checkpoints.glob(".step-*.part")}


def saving(run: RunFolder, count: int) -> Callable[[], bool]:
    """Whether, since this call, so many checkpoints were begun."""
    there, seen = unfinished(run), set[str]()

    def due() -> bool:
        now = unfinished(run)
        there.intersection_update(now)  # what an earlier kill has left goes away, and may come again
        seen.update(now - there)
        return len(seen) >= count

    return due


def later(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since this call."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


def kill(process: BaseProcess, due: Callable[[], bool], pause: float) -> None:
    """Waits for the moment and a little longer, then kills the process, unless it ends before."""
    overdue, now = later(PATIENCE), None
    while process.is_alive():
        if now is None and due():
            now = later(pause)
        if overdue() or (now is not None and now()):
            process.kill()
            process.join()
        time.sleep(0.001)


def run_with_kills(run: RunFolder, first: Sequence[str], *, kills: int, seed: int) -> Happened:
    """Starts a run, kills it so many times and goes on each time, then lets it finish."""
    chance = random.Random(seed)
    startup, killed, while_saving, printed = 1.0, 0, 0, ""
    while True:
        arguments = ["resume", str(run.path)] if run.config.is_file() else list(first)
        began = time.perf_counter()
        group = ranks.start(1, run_command, arguments, output=run.path.with_suffix(".out"))
        (process,) = group.processes
        if killed >= kills:
            kill(process, lambda: False, 0.0)
        elif killed % 3 == 2:
            kill(process, later(chance.uniform(0, 1.3 * startup)), 0.0)
        else:
            kill(process, saving(run, chance.randint(1, 3)), chance.uniform(0, 0.15 * startup))
            startup = min(startup, time.perf_counter() - began) if killed else time.perf_counter() - began
        printed += group.said(0)
        assert not [fault for folder in run.checkpoint_folders() if (fault := fault_of(folder))], f"after {killed} kills"
        if process.exitcode != -signal.SIGKILL:
            return Happened(killed, while_saving, process.exitcode or 0, printed)
        killed += 1
        while_saving += bool(unfinished(run))


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A run of 16 steps, 5 passes over ten photographs, of which one cannot be read."""
    given = command_line(tmp_path, *FOCUSING, "--batch-size", "3", "--samples", "48", "--evaluations", "5")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    return [*given, "--log-every", "7", "--max-bad", "0.2"]


def driven(command: list[str], whole: Path, killed: Path, *, kills: int, seed: int = 0) -> Happened:
    """Runs the command twice, once with so many kills; what happened to that one."""
    uninterrupted = run_with_kills(RunFolder(whole), [*command, "--out", str(whole)], kills=0, seed=seed)
    happened = run_with_kills(RunFolder(killed), [*command, "--out", str(killed)], kills=kills, seed=seed)
    assert uninterrupted[:3] == (0, 0, 0), uninterrupted.printed
    assert happened.code == 0, happened.printed
    if command[command.index("--workers") + 1] == "0":  # orphaned reading processes have a last word of PyTorch's own
        assert "Traceback" not in uninterrupted.printed + happened.printed
    return happened


def same_end(whole: Path, killed: Path) -> None:
    """Asserts that two runs ended alike, to the byte."""
    last = RunFolder(whole).checkpoint_folders()[-1].name
    for name in (
        *("model.safetensors", "checkpoints/best.safetensors", "skipped_images.txt"),
        *(f"checkpoints/{last}/{part}.safetensors" for part in ("student", "optimiser")),
    ):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    assert without_times(whole) == without_times(killed)
    kept = [{path.name: path.read_bytes() for path in (out / "held_out").iterdir()} for out in (whole, killed)]
    assert len(kept[0]) == 9  # six measurements, cosines, pictures of the first and of the worst images
    assert kept[0] == kept[1]
    assert all((out / "report.html").is_file() for out in (whole, killed))
    states = [json.loads((out / "checkpoints" / last / "state.json").read_text()) for out in (whole, killed)]
    for state in states:
        del state["training"]["seconds"], state["training"]["fitting"]
        state["settings"]["run"].pop("workers")
        state.pop("random")  # what the operating system seeded Python's and numpy's generators with
    assert states[0] == states[1]
    assert [path.name for path in RunFolder(killed).checkpoint_folders()][-1] == last
    assert len(RunFolder(killed).checkpoint_folders()) == 3
    assert not list(killed.rglob(".*"))


@pytest.mark.slow
def test_resume__after_kills_at_random_moments_ends_at_the_same_bytes(tmp_path: Path, command: list[str]) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    happened = driven([*command, "--workers", "0", "--checkpoint-every", "1steps"], whole, killed, kills=3)
    assert happened.killed >= 2  # a busy machine is late at times
    assert happened.while_saving >= 1
    same_end(whole, killed)


@pytest.mark.slow
def test_resume__after_up_to_ten_kills_with_reading_processes(tmp_path: Path, command: list[str]) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ["--samples", "300", "--workers", "2", "--checkpoint-every", "0.3s"]
    happened = driven([*command, *options], whole, killed, kills=10, seed=2)
    assert happened.killed >= 5  # with rarer checkpoints the run is at its end before all ten
    same_end(whole, killed)
