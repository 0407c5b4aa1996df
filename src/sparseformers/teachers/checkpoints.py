"""Weight files: read without running code, and the one network found in what training code leaves.

Checkpoints keep weights under keys such as ``state_dict_ema``, and their names have prefixes such as ``module.backbone.``.
Together these are a place in the file, such as ``teacher.backbone``; at the top it is empty.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PosixPath, WindowsPath
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sparseformers.errors import WeightsError, shorten
from sparseformers.teachers.base import TeacherIdentity

PREFERRED = ("ema", "averaged", "teacher")  # words of places, the better ones first: averaged weights before raw, as in timm
LAST = ("student",)
HARMLESS: list[Any] = [argparse.Namespace, PosixPath, WindowsPath]  # kept beside weights; none of it runs code when it is read
DEEPEST = 3  # keys above a state dict
LFS = b"version https://git-lfs"


class Weights(NamedTuple):
    """The weights of one network."""

    state: dict[str, Tensor]
    place: str

    def identity(
        self, architecture: str, path: Path, asked: str | None, class_names: tuple[str, ...] | None = None
    ) -> TeacherIdentity:
        """The identity of a teacher with these weights from a file, in which a user ``asked`` for a place, or not."""
        name = f"{architecture}@{path}" + (f"#{asked}" if asked else "")
        source = f"{self.place} of {path}" if self.place else str(path)
        return TeacherIdentity(name=name, source=source, place=self.place, class_names=class_names)


def read_weights(path: Path, anchors: Sequence[str] = (), *, place: str | None = None) -> Weights:
    """The weights of the network in a .safetensors file, or a pickle of tensors, whatever wraps them.

    It is found by ``anchors``, names of weights of which it has one (the first that is there counts); without them it is all
    that the file holds. Of several networks ``place`` is the one to take, or else an averaged one before a raw one. Raises
    WeightsError if the file is missing, damaged, or carries code, or holds no such network, or several of equal right.
    """
    return find_weights(_content(path), f"the file '{path}'", anchors, place=place)


def find_weights(content: Any, what: str, anchors: Sequence[str] = (), *, place: str | None = None) -> Weights:
    """As :func:`read_weights`, in a checkpoint that is loaded already; ``what`` names it in errors."""
    mappings = list(_mappings(content))
    if not mappings:
        raise WeightsError(f"{what[0].upper()}{what[1:]} holds no state dict.", "Give a mapping from names to tensors.")
    if not anchors:
        return _whole(*mappings[0])
    found = next((found for anchor in anchors if (found := _networks(mappings, anchor))), {})
    if place is not None:
        found = {name: state for name, state in found.items() if place in (name, name.partition(".")[0])}
    if not found:
        rooms = {".".join([*keys, name.partition(".")[0]]) for keys, state in mappings for name in state}
        wanted = "no weights of this architecture" + ("" if place is None else f" under '{place}'")
        told, held = " or ".join(map(repr, anchors)), shorten(rooms)
        problem = f"{what[0].upper()}{what[1:]} holds {wanted}: nothing ends in {told}. It has: {held}."
        raise WeightsError(problem, "Check the file and the architecture.")
    best = min(map(_rank, found))
    chosen = [name for name in found if _rank(name) == best]
    if len(chosen) > 1:
        problem = f"{what[0].upper()}{what[1:]} holds several networks: {', '.join(map(repr, chosen))}."
        raise WeightsError(problem, f"Name one of them: --teacher-weights {chosen[0]}.")
    return Weights(found[chosen[0]], chosen[0])


def _rank(place: str) -> int:
    words = re.split(r"[._]", place.lower())
    by_rank = [*PREFERRED, None, *LAST]
    return next((rank for rank, word in enumerate(by_rank) if word in words), len(PREFERRED))


def _mappings(content: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """The mappings from names to tensors, each under its keys; what else they hold is left out."""
    if not isinstance(content, Mapping):
        return
    if tensors := {str(name): value for name, value in content.items() if isinstance(value, Tensor)}:
        yield keys, tensors
    for key, value in content.items() if len(keys) < DEEPEST else ():
        yield from _mappings(value, (*keys, str(key)))


def _networks(mappings: Sequence[tuple[tuple[str, ...], dict[str, Tensor]]], anchor: str) -> dict[str, dict[str, Tensor]]:
    """Each place with a weight of that name, and the weights there by their names without prefix."""
    found = {}
    for keys, tensors in mappings:
        for name in tensors:
            if name == anchor or name.endswith(f".{anchor}"):
                prefix = name.removesuffix(anchor)
                own = {each.removeprefix(prefix): value for each, value in tensors.items() if each.startswith(prefix)}
                found[".".join([*keys, *([prefix.rstrip(".")] if prefix else [])])] = own
    return found


def _whole(keys: tuple[str, ...], tensors: dict[str, Tensor]) -> Weights:
    """All tensors of a mapping, without the prefixes of DDP and compile."""
    for prefix in ("module.", "_orig_mod.", "module."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return Weights(tensors, ".".join(keys))


def _content(path: Path) -> Any:
    if not path.is_file():
        raise WeightsError(f"There is no weight file '{path}'.", "Check the path after the '@'.")
    with path.open("rb") as file:
        if file.read(len(LFS)) == LFS:
            problem = f"The file '{path}' is a pointer of Git LFS, not the weights."
            raise WeightsError(problem, "Fetch what it points to: git lfs pull.")
    if path.suffix.lower() in (".npz", ".npy", ".msgpack", ".h5"):
        problem = f"The file '{path}' holds weights of another framework ({path.suffix.lower()})."
        raise WeightsError(problem, "Load it with timm or transformers, and save the state_dict as .safetensors.")
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise whatever damaged bytes lead them to
        if "torchscript" in str(error).lower():
            problem = f"The file '{path}' is a TorchScript program, which is not run."
            raise WeightsError(problem, "Save its state_dict: torch.save(torch.jit.load(FILE).state_dict(), NEW).") from None
        if "weights_only" in str(error).lower() or "unsupported global" in str(error).lower():
            problem = f"The file '{path}' holds more than tensors, and loading it could run code."
            raise WeightsError(problem, "Save its state_dict with torch.save, or better as .safetensors.") from None
        problem = f"The file '{path}' cannot be read as weights ({type(error).__name__})."
        raise WeightsError(problem, "It may be cut short: fetch it again.") from None


def class_names_of(path: Path) -> tuple[str, ...] | None:
    """Reads class names from a .safetensors file's metadata (``class_names`` or ``classes``, a JSON list)."""
    if path.suffix.lower() != ".safetensors":
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
