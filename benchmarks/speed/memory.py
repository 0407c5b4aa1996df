"""Peak memory of a route: what a process that runs nothing else needs above the libraries themselves.

On the CPU that is a process of its own for each route: in one process, models share weights, allocators keep what others gave
back, and the first one pays for what the libraries set up. The process opens the model, makes two passes of each batch size,
the smallest first, and looks at the most that was resident in the second one, less what was before the model was there. What
loading or compiling needed for a moment is not counted; what it left behind is. On CUDA the allocator counts for itself.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import torch

from benchmarks.speed.backends import Opening

PATIENCE = 600.0
"""Seconds for a process to answer in."""


def can_measure() -> bool:
    """Whether the system tells what was resident at the most: Linux does."""
    return sys.platform == "linux"


class PeakMemory:
    """Starts a process for each route; use it as a context.

    They are copies of one that has the libraries imported and has done nothing else, so that they start at once and alike.

    Args:
        threads: of PyTorch in these processes.
        folder: for models on their way.
    """

    def __init__(self, threads: int, folder: Path) -> None:
        self._threads = threads
        self._folder = folder

    def __enter__(self) -> PeakMemory:
        command = [sys.executable, "-m", "benchmarks.speed.memory_server"]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.kill()
        self._server.communicate()

    def measure(self, opening: Opening, size: tuple[int, int], batches: Sequence[int]) -> dict[int, int]:
        """Bytes at the peak, by batch size.

        Args:
            opening: the model.
            size: height and width of its images.
            batches: batch sizes.

        Raises:
            RuntimeError: if the process ended without an answer, as for want of memory.
        """
        path = self._folder / "opening.pt"
        torch.save(opening, path)
        task = {"opening": str(path), "size": size, "batches": sorted(batches), "threads": self._threads}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        try:
            self._server.stdin.write(json.dumps(task) + "\n")
            self._server.stdin.flush()
            answered = select.select([self._server.stdout], [], [], PATIENCE)[0]
            line = self._server.stdout.readline() if answered else ""
        except BrokenPipeError:
            line = ""
        finally:
            path.unlink()
        answer = json.loads(line or '{"error": "its process did not answer"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return {int(batch): int(peak) for batch, peak in answer.items()}


def peak_on_cuda(opening: Opening, images: torch.Tensor, held_before: int) -> int:
    """Bytes that a model of this process holds at the most in a pass, on CUDA.

    Args:
        opening: the model.
        images: a batch on the device.
        held_before: bytes that were allocated before the model was there.
    """
    run = opening.open(len(images))
    run(images)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run(images)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - held_before
