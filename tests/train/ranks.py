"""Groups of processes as a launcher makes them, but forked from one that has imported everything: seconds less for each."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.train.ranks_work"])


@dataclass(frozen=True)
class Group:
    """Processes that train together."""

    processes: Sequence[BaseProcess]
    output: Path

    def join(self, timeout: float = 120) -> list[int | None]:
        """Waits for all; their exit codes."""
        for process in self.processes:
            process.join(timeout)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            if process.is_alive():
                process.kill()
        return codes

    def said(self, rank: int) -> str:
        """What a process has printed."""
        path = self.output / f"rank-{rank}.txt"
        return path.read_text(encoding="utf-8") if path.is_file() else ""


def start(count: int, work: Callable[..., Any], *arguments: Any, output: Path, **environment: str) -> Group:
    """Starts ``work(*arguments)`` in ``count`` processes, each of which knows its rank."""
    output.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = []
    for rank in range(count):
        own = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1", **environment}
        target = output / f"rank-{rank}.txt"
        processes.append(CONTEXT.Process(target=_run, args=(own if count > 1 else environment, target, work, arguments)))
        processes[-1].start()
    return Group(processes, output)


def _run(environment: Mapping[str, str], output: Path, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    os.environ.update(environment)
    with output.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    code = work(*arguments)
    sys.exit(code)
