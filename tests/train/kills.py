"""Runs a command to its end, then again in processes that are killed at random moments, until that run is at its end, too.

A program of its own that forks: it imports once what every attempt needs, so that twenty of them take seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sparseformers.cli.main import main
from sparseformers.train import RunFolder
from sparseformers.train.checkpoint import fault_of
from tests.train import ranks_work  # noqa: F401  # imports what every attempt needs

PATIENCE = 120.0
"""Seconds after which an attempt that nothing happens in is given up."""


def begin(arguments: Sequence[str], log: Path) -> int:
    """Starts the command in a process that begins as this one is; what it prints goes to ``log``."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        code = main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(process: int) -> int | None:
    """The exit code of a process; None while it runs."""
    done, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


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


def attempt(process: int, due: Callable[[], bool], pause: float) -> int | None:
    """Waits for the moment and a little longer, then kills the process; its exit code if it ended before."""
    overdue, kill = later(PATIENCE), None
    while (code := ended(process)) is None:
        if kill is None and due():
            kill = later(pause)
        if overdue() or (kill is not None and kill()):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.001)
    return code


def run_with_kills(run: RunFolder, first: Sequence[str], *, kills: int, seed: int) -> dict[str, object]:
    """Starts a run, kills it so many times and goes on each time, then lets it finish; says what happened."""
    chance, log = random.Random(seed), run.path.with_suffix(".out")
    startup, killed, while_saving, code = 1.0, 0, 0, None
    while code is None:
        arguments = ["resume", str(run.path)] if run.config.is_file() else list(first)
        began = time.perf_counter()
        process = begin(arguments, log)
        if killed >= kills:
            code = attempt(process, lambda: False, 0.0)
        elif killed % 3 == 2:
            code = attempt(process, later(chance.uniform(0, 1.3 * startup)), 0.0)
        else:
            code = attempt(process, saving(run, chance.randint(1, 3)), chance.uniform(0, 0.15 * startup))
            startup = min(startup, time.perf_counter() - began) if killed else time.perf_counter() - began
        if faults := [fault for folder in run.checkpoint_folders() if (fault := fault_of(folder))]:
            raise AssertionError(f"after {killed} kills: {faults}")
        killed += code is None
        while_saving += code is None and bool(unfinished(run))
    return {"killed": killed, "while_saving": while_saving, "code": code}


if __name__ == "__main__":
    whole, killed, kills, seed, *command = sys.argv[1:]
    happened = [
        run_with_kills(RunFolder(Path(folder)), [*command, "--out", folder], kills=count, seed=int(seed))
        for folder, count in ((whole, 0), (killed, int(kills)))
    ]
    sys.stdout.write(json.dumps(happened))
