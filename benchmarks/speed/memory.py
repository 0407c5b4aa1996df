"""Peak memory of a route: what a process that runs nothing else needs above the libraries themselves.

On the CPU that is a process of its own for each route: in one process, models share weights, allocators keep what others gave
back, and the first one pays for what the libraries set up. The process opens the model, makes two passes of each batch size,
the smallest first, and reads the most that was resident in the second one, less what was there before the model. What loading
or compiling needed for a moment is not counted; what it left behind is. On CUDA the allocator counts for itself.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.speed.backends import Opening

PATIENCE = 600.0
"""Seconds for a process to answer in."""


def can_measure() -> bool:
    """Whether the system tells what was resident at the most: Linux does."""
    return sys.platform == "linux"


def peak_on_cpu(opening: Opening, size: tuple[int, int], batches: Sequence[int], *, threads: int, folder: Path) -> dict[int, int]:
    """Bytes at the peak of a process of its own, by batch size.

    Args:
        opening: the model.
        size: height and width of its images.
        batches: batch sizes.
        threads: of PyTorch in that process.
        folder: for the model on its way.

    Raises:
        RuntimeError: if it fails there, or the process ends without an answer, as for want of memory.
    """
    path = folder / "opening.pt"
    torch.save(opening, path)
    # Processes are copies of one that has the libraries imported and has done nothing else, so they start at once and alike.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, path, size, sorted(batches), threads), daemon=True)
    process.start()
    sender.close()
    try:
        answer = receiver.recv() if receiver.poll(PATIENCE) else "its process did not answer"
    except EOFError:
        answer = "its process has ended without an answer"
    finally:
        process.kill()
        process.join()
        path.unlink()
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return dict(answer)


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


def _answer(sender: Connection, path: Path, size: tuple[int, int], batches: Sequence[int], threads: int) -> None:
    """The work of the process of its own: it sends bytes by batch size, or a line of what went wrong."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print
    torch.set_num_threads(threads)
    try:
        before = _resident("VmRSS")
        model: Opening = torch.load(path, weights_only=False)  # our own file, written a moment ago
        found = {}
        for batch in batches:
            images = torch.rand(batch, 3, *size)
            run = model.open(batch)
            run(images)
            _give_back()
            run(images)
            found[batch] = _resident("VmHWM") - before
            del run
        sender.send(found)
    except Exception as error:  # whatever a backend raises, for the process that asked
        sender.send(f"{type(error).__name__}: {error}")


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
