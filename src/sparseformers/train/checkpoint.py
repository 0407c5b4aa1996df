"""One checkpoint: a folder with a state as JSON, tensors as safetensors, and a manifest of their sizes and SHA-256."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sparseformers.errors import RunError
from sparseformers.files import replacing_folder, sha256_of, synchronise
from sparseformers.saving import write_tensors

MANIFEST = "manifest.json"
"""Sizes and SHA-256 of the other files; written last, and without a complete one there is no checkpoint."""
STATE = "state.json"  # all that is no tensor
FORMAT = 1  # version of the folder; a later one is refused by name
TENSOR, TUPLE, ITEMS = "$tensor", "$tuple", "$items"
"""Marks of what JSON has no form for; a mapping with keys that are no texts, or look like a mark, is a list of items."""


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
        written = sorted(unfinished.iterdir())
        files = {path.name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in written}
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


def step_name(samples: int, batch_size: int) -> str:
    """The name of the checkpoint after so many images: ``step-00000500``."""
    return f"step-{-(-samples // batch_size):08}"


def remove(folder: Path) -> None:
    """Removes a checkpoint: first its name, so that a half of it is never taken for one."""
    hidden = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    os.replace(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


class Stateful(Protocol):
    """An object whose state is made of mappings, sequences, tensors, numbers and texts."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """A state (the part of path ``name``) as plain JSON values; ``tensors`` takes its tensors by path. TypeError for others."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {TENSOR: name}
    if isinstance(value, Mapping):
        packed = [(key, pack(item, tensors, f"{name}.{key}" if name else str(key))) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in packed):
            return dict(packed)
        return {ITEMS: [[key, item] for key, item in packed]}
    if isinstance(value, (list, tuple)):
        items = [pack(item, tensors, f"{name}.{place}") for place, item in enumerate(value)]
        return {TUPLE: items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"'{name}' is a {type(value).__name__}, which a checkpoint cannot hold")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that :func:`pack` made ``value`` of; raises KeyError if a tensor of it is missing."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]]
    if TUPLE in value:
        return tuple(unpack(item, tensors) for item in value[TUPLE])
    if ITEMS in value:
        return {key: unpack(item, tensors) for key, item in value[ITEMS]}
    return {key: unpack(item, tensors) for key, item in value.items()}


class HostMemory:
    """Copies of tensors in memory of the processor, which is taken once and used again for every checkpoint."""

    def __init__(self) -> None:
        self._copies: dict[tuple[str, str], Tensor] = {}

    def copy(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Copies of the tensors (by file and name), contiguous; those of the call before are overwritten."""
        copies = {
            file: {name: self._filled((file, name), tensor) for name, tensor in named.items()} for file, named in tensors.items()
        }
        if any(tensor.device.type != "cpu" for named in tensors.values() for tensor in named.values()):
            torch.accelerator.synchronize()
        return copies

    def _filled(self, key: tuple[str, str], tensor: Tensor) -> Tensor:
        copy = self._copies.get(key)
        if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
            pinned = tensor.device.type == "cuda"  # which lets all copies go on at once
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
            self._copies[key] = copy
        return copy.copy_(tensor, non_blocking=True)
