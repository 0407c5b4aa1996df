"""A SparseFormer in one file: weights as safetensors, its configuration inside, usable without the teacher."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparseformers import __version__
from sparseformers.config import SparseFormerConfig
from sparseformers.errors import ConfigError, RunError, WeightsError
from sparseformers.files import replacing, synchronise
from sparseformers.inheritance import Provenance
from sparseformers.model import SparseFormer
from sparseformers.settings import from_dict, to_dict
from sparseformers.teachers.base import check_fit

MODEL_FILE = "model.safetensors"  # the name of a model inside a run folder
CONFIGURATION = "_extra_state"
"""The name that PyTorch has for what belongs to a module besides its weights: here its configuration as JSON, in bytes.

A file carries it twice: for us in the metadata, and among the tensors for hosts such as timm, which read nothing else.
"""
OLD_FRONTS = {"inherited": "grid", "bootstrapped": "focusing"}  # the names of fronts in files of version 0.1
RETIRED = {"cortex": [("position_grid", None)]}  # settings without effect in older files, by part, that are gone
SCORE = "held_out_centred_cosine"  # the name in a file's metadata of how near the student was to its teacher


class SavedModel(NamedTuple):
    """The contents of a model file."""

    student: SparseFormer  # in evaluation mode, float32, on the CPU
    provenance: Provenance | None  # None for a model that was not inherited


def save(
    student: SparseFormer,
    path: str | Path,
    *,
    provenance: Provenance | None = None,
    weights: Mapping[str, Tensor] | None = None,
    score: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a student with its configuration to one .safetensors file, whole or not at all; the same student, the same bytes.

    ``weights`` are its state dict, where it does not hold all of it itself, ``score`` tells how near it is to its teacher (see
    :func:`saved_score`), and ``metadata`` is further texts by name. Raises OSError if it cannot be written.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in (weights or student.state_dict()).items()}
    texts = {
        **(metadata or {}),
        "format": "sparseformers",
        "sparseformers": __version__,
        "config": json.dumps(to_dict(student.config)),
        "digest": digest(state),
    }
    if provenance is not None:
        texts["provenance"] = json.dumps(to_dict(provenance))
    if score is not None:
        texts[SCORE] = repr(score)
    with replacing(Path(path)) as temporary:
        write_tensors(temporary, state | {CONFIGURATION: configuration_tensor(student.config)}, texts)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors (contiguous, on the CPU) and texts down to the disk; the same content, the same bytes. Raises OSError."""
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:  # which tells the cause in its text only
        if (cause := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        raise OSError(int(cause[1]), os.strerror(int(cause[1])), str(path)) from error
    if metadata:
        _sort_metadata(path)
    synchronise(path)


def _sort_metadata(path: Path) -> None:
    """Puts the metadata of a .safetensors file in order, in place: the library writes them in another one each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > size:  # another spelling of the same texts, which no reader minds
            return
        file.seek(8)
        file.write(text.ljust(size))


def saved_score(path: Path) -> float | None:
    """The score that a file was saved with, see :func:`save`; None if there is no such file or it does not say."""
    try:
        return float(_metadata(path)[SCORE])
    except (KeyError, ValueError):
        return None


def is_saved_model(path: Path) -> bool:
    """Whether a file is one that :func:`save` wrote, by its header alone."""
    return _metadata(path).get("format") == "sparseformers"


def _metadata(path: Path) -> dict[str, str]:
    """The texts in a file's header; nothing where it is no .safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def configuration_tensor(config: SparseFormerConfig) -> Tensor:
    """A configuration as JSON, in bytes: uint8, one-dimensional."""
    return torch.frombuffer(bytearray(json.dumps(to_dict(config)).encode()), dtype=torch.uint8).clone()


def load(run_or_file: str | Path) -> SparseFormer:
    """Loads a SparseFormer, in evaluation mode, from a run folder or a model file; the teacher is not needed.

    Raises RunError if the folder is no run, or its run has not saved a model yet, and WeightsError if the file is cut short, was
    tampered with, or is no SparseFormer.
    """
    return load_saved(run_or_file).student


def load_saved(run_or_file: str | Path) -> SavedModel:
    """Like :func:`load`, with the provenance of the model."""
    path = model_file(Path(run_or_file))
    state, metadata = _read(path)
    configuration = state.pop(CONFIGURATION, None)  # files from before there was one have none
    try:
        config = read_config(json.loads(metadata["config"]), where=f"configuration in '{path}'")
        provenance = metadata.get("provenance")
        origin = None if provenance is None else from_dict(Provenance, json.loads(provenance), where=f"provenance in '{path}'")
    except (json.JSONDecodeError, ConfigError) as error:
        raise WeightsError(f"The configuration inside '{path}' cannot be used: {error}", "Save the model again.") from None
    with torch.device("meta"):
        student = SparseFormer(config)
    check_fit(student.state_dict(), state, what=f"'{path}'")
    changed = configuration is not None and bytes(configuration.tolist()) != metadata["config"].encode()
    if changed or metadata.get("digest") != digest(state):
        problem = f"The weights in '{path}' are not those that were saved."
        raise WeightsError(problem, "The file was changed or damaged: fetch it again.")
    student = SparseFormer(config)  # its buffers, which the file does not hold, need real memory
    student.load_state_dict(state)
    return SavedModel(student.eval(), origin)


def read_config(values: Any, *, where: str) -> SparseFormerConfig:
    """A network's configuration from JSON values (``where``) of this version or an older one; ConfigError or WeightsError."""
    if isinstance(values, dict):
        for part, retired in RETIRED.items():
            if isinstance(values.get(part), dict):
                values = values | {part: {name: value for name, value in values[part].items() if (name, value) not in retired}}
        front = values.get("focusing")
        if isinstance(front, dict) and front.get("kind") in (*OLD_FRONTS, "grid"):
            if looks := front.get("looks"):
                problem = f"The {where} is of a front whose RoIs move ({looks} looks), which brought nothing and is gone."
                raise WeightsError(problem, "Use version 0.1 for it, or bootstrap anew.")
            # How far RoIs might move has no meaning where they do not.
            kept = {name: value for name, value in front.items() if name not in ("looks", "bound")}
            values = values | {"focusing": kept | {"kind": OLD_FRONTS.get(front["kind"], front["kind"])}}
    return from_dict(SparseFormerConfig, values, where=where)


def model_file(path: Path) -> Path:
    """The model file that a run folder or a path to a file means; raises RunError if there is none."""
    if path.is_dir():
        if (path / MODEL_FILE).is_file():
            return path / MODEL_FILE
        if (path / "config.json").is_file():
            raise RunError(f"The run '{path}' has no {MODEL_FILE} yet.", "Wait for its first evaluation, or resume it.")
        raise RunError(f"The folder '{path}' is not a run of sparseformers.", "Give the --out folder of a bootstrap.")
    if not path.is_file():
        raise RunError(f"There is no run folder or model file '{path}'.", "Check the path.")
    return path


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (SafetensorError, OSError) as error:
        problem = f"The file '{path}' cannot be read as safetensors ({error})."
        raise WeightsError(problem, "It may be cut short: fetch or save it again.") from None
    if metadata.get("format") != "sparseformers" or "config" not in metadata:
        remedy = "Give a model.safetensors that sparseformers saved; weights of a teacher go after '--teacher timm:NAME@'."
        raise WeightsError(f"The file '{path}' is not a model of sparseformers: it carries no configuration.", remedy)
    return state, metadata


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and values of a state dict."""
    checksum = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        checksum.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        checksum.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return checksum.hexdigest()
