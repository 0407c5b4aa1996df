"""Loads a teacher, or its text tower, by what a user writes after ``--teacher``; or wraps a network that exists already."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from sparseformers.errors import MissingExtraError, TeacherError, suggest
from sparseformers.settings import ImageSize
from sparseformers.teachers.base import Teacher
from sparseformers.teachers.hubs import check_version

if TYPE_CHECKING:
    from sparseformers.teachers.open_clip_text import TextTower

LARGEST_SIDE = 10_000  # pixels
KINDS = ("timm", "open_clip", "hf", "bundled")  # the beginnings of teachers' names
FORMS = "timm:NAME, timm:NAME@FILE, open_clip:ARCH/TAG, open_clip:ARCH@FILE, hf:REPO or bundled"
BUNDLED_SIZE = (224, 224)  # height and width in pixels that the bundled teacher runs at unless told otherwise (its own is 518)

HOSTS: Mapping[str, tuple[str, str, str]] = {
    "timm": ("timm", "timm", ""),
    "bundled": ("timm", "timm", ""),
    "open_clip": ("open_clip", "open_clip_torch", "open-clip"),
    "open_clip_text": ("open_clip", "open_clip_torch", "open-clip"),
    "huggingface": ("transformers", "transformers", "huggingface"),
}  # the host library of each adapter: its module, its package, and the extra that it comes with


def load_teacher(teacher: str | nn.Module, *, image_size: ImageSize | None = None, crop: float | None = None) -> Teacher:
    """Loads a teacher by its name, or makes one of a network that exists already.

    Names are ``timm:NAME``, ``timm:NAME@FILE``, ``open_clip:ARCH/TAG``, ``open_clip:ARCH@FILE``, ``hf:REPO`` (or a folder in its
    format) or ``bundled``, with ``FILE#PLACE`` for one of several networks in a file; ``sparseformers teachers`` lists them. A
    network is copied: a vision transformer of timm, a CLIP of OpenCLIP, or a vision model of transformers; a teacher is returned
    as it is. ``image_size`` is the side in pixels, or height and width, to run it at, for which its position embeddings are
    resampled, and ``crop`` the share of the shorter side that its central crop keeps; its own by default.

    Raises TeacherError if it is unknown, cannot be fetched, or cannot be inherited from, WeightsError if its weights cannot be
    read or do not fit, and MissingExtraError if the library that it comes from is not installed.
    """
    if isinstance(teacher, Teacher):
        return teacher
    size = _size(image_size)
    options: dict[str, Any] = {"image_size": size, "crop": crop}
    if isinstance(teacher, nn.Module):
        inner: nn.Module = getattr(teacher, "_orig_mod", getattr(teacher, "module", teacher))  # of torch.compile, or DataParallel
        return _adapter(_library_of(inner)).from_module(inner, **options)
    if not isinstance(teacher, str):
        problem = f"A teacher is a name or a network (a torch.nn.Module), not {type(teacher).__name__}."
        raise TeacherError(problem, f"Names are {FORMS}.")
    name = _Name.of(teacher)
    if name.kind not in KINDS or (name.kind == "bundled") == bool(name.rest) or name.file == "":
        raise TeacherError(f"'{teacher}' names no teacher.", _how_to_name(name.kind, name.rest))
    if name.kind == "bundled":
        return _adapter("bundled").load(image_size=BUNDLED_SIZE if size is None else size, crop=crop)
    if name.file is not None:
        return _adapter(name.kind).from_file(name.rest, Path(name.file), place=name.place, **options)
    return _adapter("huggingface" if name.kind == "hf" else name.kind).from_hub(name.rest, **options)


def _size(image_size: ImageSize | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    sides = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(sides) != 2 or any(type(side) is not int or not 0 < side <= LARGEST_SIDE for side in sides):
        problem = f"An image size is a number of pixels up to {LARGEST_SIDE:,}, or a height and a width, not {image_size!r}."
        raise TeacherError(problem, "Use 224, or (256, 128), for example.")
    return sides[0], sides[1]


class _Name(NamedTuple):
    """A teacher's name in parts: KIND:REST, or KIND:REST@FILE#PLACE."""

    kind: str
    rest: str
    file: str | None = None
    place: str | None = None

    @classmethod
    def of(cls, teacher: str) -> _Name:
        """Splits at the first '@', but not inside a folder's name or the path of a configuration file."""
        kind, _, rest = teacher.partition(":")
        if kind == "hf" or "@" not in rest:
            return cls(kind, str(Path(rest).expanduser()) if rest.startswith("~") else rest)
        begin = rest.find(".json@") + len(".json") if ".json@" in rest else rest.index("@")
        name, file = rest[:begin], str(Path(rest[begin + 1 :]).expanduser()) if rest[begin + 1 :] else ""
        before, mark, place = file.rpartition("#")
        if mark and place and not Path(file).exists():
            return cls(kind, name, before, place)
        return cls(kind, name, file)

    def absolute(self) -> str:
        """The same name in any working directory."""
        local = self.rest.endswith(".json") or (self.kind == "hf" and Path(self.rest).expanduser().is_dir())
        name = f"{self.kind}:{Path(self.rest).expanduser().absolute() if local else self.rest}"
        return name if not self.file else f"{name}@{Path(self.file).absolute()}" + (f"#{self.place}" if self.place else "")


def absolute_name(teacher: str) -> str:
    """Makes the local files and folders in a teacher's name absolute, so that it means the same in any working directory."""
    return _Name.of(teacher).absolute() if teacher.partition(":")[0] in KINDS and ":" in teacher else teacher


def untrained_teacher(architecture: str, *, image_size: int | None = None) -> Teacher:
    """A timm architecture with random weights, to measure its cost, which does not depend on them."""
    return _adapter("timm").untrained(architecture, image_size=None if image_size is None else (image_size, image_size))


def huggingface_types() -> tuple[str, ...]:
    """The model types of transformers that can be inherited from; none where it is not installed."""
    return tuple(_adapter("huggingface").TOWERS) if importlib.util.find_spec("transformers") else ()


def load_text_tower(teacher: str) -> TextTower:
    """The text tower of ``open_clip:ARCH/TAG``, or of ``open_clip:ARCH@FILE`` where FILE holds the whole CLIP.

    Raises TeacherError if there is none, or it cannot be had, WeightsError if its weights cannot be read or do not fit, and
    MissingExtraError without OpenCLIP.
    """
    name = _Name.of(teacher)
    if name.kind != "open_clip":
        problem = f"The teacher '{teacher}' has no text tower that could be asked for words."
        raise TeacherError(problem, "Zero-shot figures and retrieval need a student of an OpenCLIP teacher (open_clip:ARCH/TAG).")
    adapter = _adapter("open_clip_text")
    return adapter.from_file(name.rest, Path(name.file), place=name.place) if name.file else adapter.from_hub(name.rest)


def named_templates(name: str) -> tuple[str, ...]:
    """OpenCLIP's prompts for ImageNet, ``openai`` (80) or ``simple`` (7), each with ``{}`` for the name of a class."""
    return _adapter("open_clip_text").TEMPLATES[name]


def _adapter(name: str) -> Any:
    module, package, extra = HOSTS[name]
    MissingExtraError.require(module, extra)
    check_version(package)
    return importlib.import_module(f"sparseformers.teachers.{name}")


def _library_of(network: nn.Module) -> str:
    """The adapter for a network, by the library that its class or one of its base classes comes from; timm by default."""
    libraries = {kind.__module__.partition(".")[0] for kind in type(network).__mro__}
    return "open_clip" if "open_clip" in libraries else "huggingface" if "transformers" in libraries else "timm"


def _how_to_name(kind: str, rest: str) -> str:
    forms = f"Write {FORMS}."
    if kind in KINDS:
        return forms
    near = suggest(kind, KINDS)
    if not rest and kind.startswith(("vit_", "deit")):
        near = f"Did you mean 'timm:{kind}'?"
    return f"{near} {forms}".strip()
