"""Runs a command in processes that are killed at random moments, until its run is at its end."""

import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import torch

from sparseformers.cli.main import main
from sparseformers.train import RunFolder
from sparseformers.train.checkpoint import fault_of
from tests.train import ranks

PATIENCE = 300.0
"""Seconds after which an attempt that nothing happens in is given up."""


class Happened(NamedTuple):
    """What came of it: how many attempts were killed, how many of these while they saved, and how the last one ended."""

    killed: int
    while_saving: int
    code: int
    printed: str


def command(arguments: Sequence[str]) -> int:
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
    """Starts a run, kills it so many times and goes on each time, then lets it finish.

    Raises:
        AssertionError: if a checkpoint is not whole after a kill.
    """
    chance = random.Random(seed)
    startup, killed, while_saving, printed = 1.0, 0, 0, ""
    while True:
        arguments = ["resume", str(run.path)] if run.config.is_file() else list(first)
        began = time.perf_counter()
        group = ranks.start(1, command, arguments, output=run.path.with_suffix(".out"))
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
