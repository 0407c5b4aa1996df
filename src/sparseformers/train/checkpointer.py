"""The checkpoints of a run: which one to go on from, when the next is due, how many are kept, and writing beside the steps."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from accelerate import Accelerator

from sparseformers.errors import RunError
from sparseformers.files import synchronise
from sparseformers.processes import agreed, chosen_by_first
from sparseformers.train.checkpoint import HostMemory, Snapshot, fault_of, remove, step_name, write_checkpoint
from sparseformers.train.lengths import Interval, Place
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.settings import BootstrapConfig

LOGGER = logging.getLogger("sparseformers")


class Found(NamedTuple):
    """The checkpoint to go on from."""

    folder: Path | None  # the newest whole one; None where nothing was saved yet
    notes: tuple[str, ...]  # the damage of newer ones, in sentences


def find_checkpoint(run: RunFolder, accelerator: Accelerator) -> Found:
    """The newest whole checkpoint, the same in all processes; RunError if there are some, but none that is whole or of ours."""
    return chosen_by_first(lambda: _newest_whole(run), accelerator)


def _newest_whole(run: RunFolder) -> Found:
    faults: list[tuple[str, str]] = []
    for folder in reversed(run.checkpoint_folders()):
        fault = fault_of(folder)
        if fault is None:
            notes = [f"The checkpoint {name} is damaged ({what}): going on from {folder.name}." for name, what in faults]
            return Found(folder, tuple(notes))
        faults.append((folder.name, fault))
    if faults:
        told = "; ".join(f"{name}: {what}" for name, what in faults)
        problem = f"None of the checkpoints in '{run.checkpoints}' is whole ({told})."
        raise RunError(problem, "Put one back from a copy, or start the run again with --overwrite.")
    if (run.checkpoints / "last.pt").is_file():
        problem = f"The checkpoint '{run.checkpoints / 'last.pt'}' was written by an earlier version of sparseformers."
        raise RunError(problem, "Go on with that version, or start the run again with --overwrite.")
    return Found(None, ())


class Checkpointer:
    """Writes the checkpoints of a run.

    A step waits for a copy to the processor's memory only; a thread of the main process writes the copy. While it does, no other
    checkpoint is begun: the next one that is due follows as soon as the thread is done. ``settings`` say how often, and how many
    are kept; ``images`` are those of an epoch; at ``start`` there is a checkpoint, unless that is the beginning.
    """

    def __init__(self, run: RunFolder, settings: BootstrapConfig, *, images: int, accelerator: Accelerator, start: Place) -> None:
        self.run, self.settings, self.images, self.accelerator = run, settings, images, accelerator
        self.interval = Interval.parse(settings.run.checkpoint_every, flag="--checkpoint-every")
        self.saved = start
        self._memory = HostMemory()
        self._writing = Writing()

    def is_due(self, now: Place) -> bool:
        """Whether to write one now; the same answer in all processes."""
        due = self.interval.has_passed(self.saved, now, batch_size=self.settings.optimisation.batch_size, images=self.images)
        return due and not agreed(float(self._writing.is_busy), self.accelerator)

    @property
    def has_failed(self) -> bool:
        """Whether this process could not write its last checkpoint: then :meth:`wait` says why."""
        return self._writing.failure is not None

    def save(self, snapshot: Snapshot, now: Place) -> None:
        """Copies the main process's tensors and begins to write them; RunError if the one before could not be written."""
        self.saved = now
        if not self.accelerator.is_main_process:
            return
        self.wait()
        began = time.perf_counter()
        copy = Snapshot(snapshot.state, self._memory.copy(snapshot.tensors))
        copied = time.perf_counter() - began
        folder = self.run.checkpoints / step_name(now.samples, self.settings.optimisation.batch_size)
        self._writing.start(lambda: self._write(folder, copy, copied))

    def wait(self) -> None:
        """Waits until what was begun is written; raises RunError if it could not be."""
        self._writing.wait()
        failure = self._writing.failure
        if isinstance(failure, OSError):
            raise self.run.write_error(failure) from failure
        if failure is not None:
            raise failure

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not isinstance(error, KeyboardInterrupt):  # whatever else has failed, what was begun is worth having
            self._writing.wait()

    def _write(self, folder: Path, snapshot: Snapshot, copied: float) -> None:
        began = time.perf_counter()
        if self.run.metrics.is_file():
            synchronise(self.run.metrics)  # its lines up to here are not made again
        size = write_checkpoint(folder, snapshot)
        took = time.perf_counter() - began
        LOGGER.info("wrote checkpoint %s: %.1f MB, copied in %.3f s, written in %.3f s", folder.name, size / 1e6, copied, took)
        # As many of the newest ones are kept; those after the one just written are of no use any more.
        folders = self.run.checkpoint_folders()
        place = folders.index(folder)
        for old in folders[: max(0, place + 1 - self.settings.run.keep)] + folders[place + 1 :]:
            remove(old)


class Writing:
    """One task at a time in a thread of its own, which does not keep a program from ending."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, task: Callable[[], None]) -> None:
        """Begins a task; the one before has to be done."""
        self._thread = threading.Thread(target=self._do, args=(task,), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _do(self, task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # whatever it is, it belongs to the thread that asked
            self.failure = error


def remove_leftovers(run: RunFolder) -> list[str]:
    """Removes what writing left unfinished when the run was killed, and returns the names."""
    unfinished = [path for folder in (run.path, run.checkpoints, run.held_out) for path in folder.glob(".*.part")]
    found = [*unfinished, *run.checkpoints.glob(".*.old")]
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return sorted(path.name for path in found)
