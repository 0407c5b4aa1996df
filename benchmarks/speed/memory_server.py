"""The process that :mod:`benchmarks.speed.memory` starts: it answers each line of JSON with one, from a copy of itself."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.speed.backends import Opening


def serve() -> None:
    """Answers the tasks on standard input until that ends."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            _answer(json.loads(line), answers)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        if status:
            _write(answers, {"error": "its process has ended without an answer"})


def _answer(task: dict[str, object], answers: int) -> None:
    """What the copy does."""
    try:
        _write(answers, peaks(**task))  # type: ignore[arg-type]
    except Exception as error:  # whatever a backend raises, for the process that asked
        _write(answers, {"error": f"{type(error).__name__}: {error}"})


def _write(answers: int, content: object) -> None:
    os.write(answers, (json.dumps(content) + "\n").encode())


def peaks(opening: str, size: Sequence[int], batches: Sequence[int], threads: int) -> dict[int, int]:
    """Peak bytes of a model in this process by batch size, above what there is at the start.

    Args:
        opening: the file that the model was saved to.
        size: height and width of its images.
        batches: in ascending order.
        threads: of PyTorch.
    """
    torch.set_num_threads(threads)
    before = _resident("VmRSS")
    model: Opening = torch.load(opening, weights_only=False)  # our own file, written a moment ago
    found = {}
    for batch in batches:
        images = torch.rand(batch, 3, *size)
        run = model.open(batch)
        run(images)
        _give_back()
        run(images)
        found[batch] = _resident("VmHWM") - before
        del run
    return found


def _resident(field: str) -> int:
    """Bytes of this process in memory: VmRSS now, VmHWM at the most since that was last set back."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def _give_back() -> None:
    """Returns freed memory to the system, and has the peak start anew from what is resident."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    serve()
