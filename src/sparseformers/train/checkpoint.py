"""The checkpoints of a run: folders of a state as JSON, tensors as safetensors, and a manifest of their sizes and SHA-256.

Which one to go on from, when the next is due, how many are kept, and writing beside the steps.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sparseformers.errors import RunError
from sparseformers.files import replacing_folder, sha256_of, synchronise
from sparseformers.processes import agreed
from sparseformers.saving import write_tensors
from sparseformers.train.lengths import Interval, Place
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.settings import BootstrapConfig

LOGGER = logging.getLogger("sparseformers")
MANIFEST = "manifest.json"  # sizes and SHA-256 of the other files; written last: without a whole one there is no checkpoint
STATE = "state.json"  # all that is no tensor
FORMAT = 1  # version of the folder; a later one is refused by name


class Snapshot(NamedTuple):
    """The content of a checkpoint."""

    state: dict[str, Any]  # plain JSON values
    tensors: dict[str, dict[str, Tensor]]  # tensors by file (without its suffix) and name; contiguous, on the CPU


def write_checkpoint(folder: Path, snapshot: Snapshot) -> int:
    """Writes a checkpoint, in the place of one that is there; returns its bytes. An OSError leaves nothing of it."""
    with replacing_folder(folder) as unfinished:
        for file, tensors in snapshot.tensors.items():
            write_tensors(unfinished / f"{file}.safetensors", tensors)
        _write_json(unfinished / STATE, snapshot.state)
        files = {path.name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(unfinished.iterdir())}
        _write_json(unfinished / MANIFEST, {"format": FORMAT, "files": files})
        return sum(path.stat().st_size for path in unfinished.iterdir())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    synchronise(path)


def fault_of(folder: Path) -> str | None:
    """The damage of a checkpoint in a few words; None if it is whole, every byte of it."""
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        for name, entry in files.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if (size := (folder / name).stat().st_size) != entry["size"]:
                return f"{name} has {size:,} bytes instead of {entry['size']:,}"
            if sha256_of(folder / name) != entry["sha256"]:
                return f"{name} holds other bytes than were written"
        return None if STATE in files else f"its {MANIFEST} is incomplete"
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"its {MANIFEST} cannot be used ({type(error).__name__})"


def read_checkpoint(folder: Path) -> Snapshot:
    """Reads a whole checkpoint; raises RunError if it is of a later format, or was changed since it was found whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            problem = f"The checkpoint '{folder}' has format {manifest['format']}, and this version reads format {FORMAT}."
            raise RunError(problem, "Go on with the version of sparseformers that the run was made with.")
        state = json.loads((folder / STATE).read_bytes())
        suffix = ".safetensors"
        tensors = {name.removesuffix(suffix): load_file(folder / name) for name in manifest["files"] if name.endswith(suffix)}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        problem = f"The checkpoint '{folder}' cannot be read ({type(error).__name__})."
        raise RunError(problem, "Resume the run from the one before it.") from error
    return Snapshot(state, tensors)


def remove(folder: Path) -> None:
    """Removes a checkpoint: first its name, so that a half of it is never taken for one."""
    hidden = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    os.replace(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


class HostMemory:
    """Copies of tensors in memory of the processor, which is taken once and used again for every checkpoint."""

    def __init__(self) -> None:
        self._copies: dict[tuple[str, str], Tensor] = {}

    def copy(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Copies of the tensors (by file and name), contiguous; those of the call before are overwritten."""
        copies: dict[str, dict[str, Tensor]] = {file: {} for file in tensors}
        for file, name, tensor in ((file, name, each) for file, named in tensors.items() for name, each in named.items()):
            copy = self._copies.get((file, name))
            if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
                pinned = tensor.device.type == "cuda"  # which lets all copies go on at once
                copy = self._copies[file, name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
            copies[file][name] = copy.copy_(tensor, non_blocking=True)
        if any(tensor.device.type != "cpu" for named in tensors.values() for tensor in named.values()):
            torch.accelerator.synchronize()
        return copies


def newest_whole(run: RunFolder) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, None where nothing was saved yet, and sentences on the damage of newer ones.

    Raises RunError if there are some, but none that is whole or of ours.
    """
    faults: list[tuple[str, str]] = []
    for folder in reversed(run.checkpoint_folders()):
        if (fault := fault_of(folder)) is None:
            return folder, [f"The checkpoint {name} is damaged ({what}): going on from {folder.name}." for name, what in faults]
        faults.append((folder.name, fault))
    if faults:
        told = "; ".join(f"{name}: {what}" for name, what in faults)
        problem = f"None of the checkpoints in '{run.checkpoints}' is whole ({told})."
        raise RunError(problem, "Put one back from a copy, or start the run again with --overwrite.")
    if (run.checkpoints / "last.pt").is_file():
        problem = f"The checkpoint '{run.checkpoints / 'last.pt'}' was written by an earlier version of sparseformers."
        raise RunError(problem, "Go on with that version, or start the run again with --overwrite.")
    return None, []


def remove_leftovers(run: RunFolder) -> list[str]:
    """Removes what writing left unfinished when the run was killed, and returns the names."""
    folders, kinds = (run.path, run.checkpoints, run.held_out), (".*.part", ".*.old", ".tmp*")  # the last are safetensors' own
    found = [path for folder in folders for kind in kinds for path in folder.glob(kind)]
    for path in found:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return sorted(path.name for path in found)


class Checkpointer:
    """Writes the checkpoints of a run.

    A step waits for a copy to the processor's memory only; a thread of the main process, which does not keep a program from
    ending, writes the copy. While it does, no other checkpoint is begun: the next one that is due follows as soon as the thread
    is done. ``settings`` say how often, and how many are kept; ``images`` are those of an epoch; at ``start`` there is a
    checkpoint, unless that is the beginning.
    """

    def __init__(self, run: RunFolder, settings: BootstrapConfig, *, images: int, accelerator: Accelerator, start: Place) -> None:
        self.run, self.settings, self.images, self.accelerator = run, settings, images, accelerator
        self.interval = Interval.parse(settings.run.checkpoint_every)
        self.saved, self._memory = start, HostMemory()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def is_due(self, now: Place) -> bool:
        """Whether to write one now; the same answer in all processes."""
        due = self.interval.has_passed(self.saved, now, batch_size=self.settings.optimisation.batch_size, images=self.images)
        return due and not agreed(float(self.is_busy), self.accelerator)

    @property
    def is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def has_failed(self) -> bool:
        """Whether this process could not write its last checkpoint: then :meth:`wait` says why."""
        return self._failure is not None

    def save(self, snapshot: Snapshot, now: Place) -> None:
        """Copies the main process's tensors and begins to write them; RunError if the one before could not be written."""
        self.saved = now
        if not self.accelerator.is_main_process:
            return
        self.wait()
        began = time.perf_counter()
        copy = Snapshot(snapshot.state, self._memory.copy(snapshot.tensors))
        copied = time.perf_counter() - began
        step = -(-now.samples // self.settings.optimisation.batch_size)  # the last one may be short
        given = (self.run.checkpoints / f"step-{step:08}", copy, copied)
        self._thread = threading.Thread(target=self._write, args=given, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Waits until what was begun is written; raises RunError if it could not be."""
        self._join()
        if isinstance(self._failure, OSError):
            raise self.run.write_error(self._failure) from self._failure
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, KeyboardInterrupt):  # whatever else has failed, what was begun is worth having
            self._join()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, folder: Path, snapshot: Snapshot, copied: float) -> None:
        try:
            began = time.perf_counter()
            if self.run.metrics.is_file():
                synchronise(self.run.metrics)  # its lines up to here are not made again
            size = write_checkpoint(folder, snapshot)
            told = (folder.name, size / 1e6, copied, time.perf_counter() - began)
            LOGGER.info("wrote checkpoint %s: %.1f MB, copied in %.3f s, written in %.3f s", *told)
            # As many of the newest ones are kept; those after the one just written are of no use any more.
            folders = self.run.checkpoint_folders()
            place = folders.index(folder)
            for old in folders[: max(0, place + 1 - self.settings.run.keep)] + folders[place + 1 :]:
                remove(old)
        except BaseException as error:  # whatever it is, it belongs to the thread that asked
            self._failure = error
