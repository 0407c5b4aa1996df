"""Weight files, hubs and versions of host libraries: what the adapters share."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sparseformers.errors import SparseFormersError, TeacherError, WeightsError

LICENCES = {
    "Apache-2.0": ("dinov2", "lvd142m", "dino", "webli", "augreg", "orig"),
    "CC-BY-NC-4.0": ("metaclip", "mae"),
    "MIT": ("openai", "laion", "datacomp", "commonpool"),
}
"""Licences of hub weights as their authors publish them, and parts of their names."""

TESTED_VERSIONS = {"timm": ("1.0.21", "1.0.31"), "open_clip_torch": ("2.30", "3.3"), "transformers": ("4.52", "5.23")}
"""The oldest and newest version of each host library that the tests ran with."""

HUB_PATIENCE = 10.0  # seconds to wait for a sign of life from a hub

WRAPPERS = ("model", "state_dict", "teacher", "model_state_dict")
"""Keys under which training code keeps the weights inside a checkpoint."""


def check_version(library: str) -> None:
    """Raises TeacherError if a host library is too old."""
    installed, (oldest, newest) = version(library), TESTED_VERSIONS[library]
    have, need = ([int(number) for number in re.findall(r"\d+", text)] for text in (installed, oldest))
    if have[: len(need)] < need:
        problem = f"{library} {installed} is too old; versions {oldest} to {newest} are tested."
        raise TeacherError(problem, f"Upgrade it with: pip install '{library}>={oldest}'.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a .safetensors file, or a pickle of tensors alone; raises WeightsError if it is missing, damaged, or carries code."""
    if not path.is_file():
        raise WeightsError(f"There is no weight file '{path}'.", "Check the path after the '@'.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise whatever damaged bytes lead them to
        if "weights_only" in str(error).lower() or "unsupported global" in str(error).lower():
            problem = f"The file '{path}' holds more than tensors, and loading it could run code."
            raise WeightsError(problem, "Save its state_dict with torch.save, or better as .safetensors.") from None
        problem = f"The file '{path}' cannot be read as weights ({type(error).__name__})."
        raise WeightsError(problem, "It may be cut short: fetch it again.") from None
    return unwrap(content, what=f"the file '{path}'")


def unwrap(content: Any, *, what: str) -> dict[str, Tensor]:
    """Takes the state dict out of a checkpoint (see ``WRAPPERS``), and the prefixes of DDP and compile off its names."""
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{what[0].upper()}{what[1:]} holds no state dict.", "Give a mapping from names to tensors.")
    for prefix in ("module.", "_orig_mod.", "module."):
        if all(name.startswith(prefix) for name in content):
            content = {name.removeprefix(prefix): value for name, value in content.items()}
    return dict(content)


def class_names_of(path: Path) -> tuple[str, ...] | None:
    """Reads class names from a .safetensors file's metadata (``class_names`` or ``classes``, a JSON list)."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    for key in ("class_names", "classes", "labels"):
        try:
            names = json.loads(metadata.get(key, "null"))
        except json.JSONDecodeError:
            names = metadata[key].split(",")
        if isinstance(names, list):
            return tuple(str(name) for name in names)
    return None


def licence_of(name: str) -> str | None:
    """Looks up the licence of hub weights by their name."""
    return next((licence for licence, parts in LICENCES.items() if any(part in name.lower() for part in parts)), None)


def expect_hub(repository: str | None) -> None:
    """Raises at once, in its client's own way, if the hub is needed and cannot be reached; the client itself tries for a minute.

    ``repository`` is OWNER/NAME or OWNER/NAME/FILE; None where the weights do not come from the hub.
    """
    if repository is None:
        return
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    cached = Path(constants.HF_HUB_CACHE) / "--".join(["models", *repository.split("/")[:2]]) / "snapshots"
    if not constants.HF_HUB_OFFLINE and not cached.is_dir():
        get_session().head(constants.ENDPOINT, timeout=HUB_PATIENCE)


def hub_errors(teacher: str, *, by_hand: str) -> AbstractContextManager[None]:
    """Turns whatever a hub's client raises into one TeacherError that says how to go on without the hub."""
    remedy = f"Check the network, or fetch the file elsewhere and give it as {by_hand}; 'bundled' needs no hub."
    return client_errors(TeacherError, f"The weights of '{teacher}' could not be fetched", remedy)


@contextmanager
def client_errors(kind: type[SparseFormersError], problem: str, remedy: str) -> Iterator[None]:
    """Turns whatever a hub's client raises into one error of ``kind``, with the reason after the problem."""
    try:
        yield
    except SparseFormersError:
        raise
    except Exception as error:  # clients raise anything from OSError to their HTTP library's own types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise kind(f"{problem} ({type(error).__name__}: {reason}).", remedy) from error
