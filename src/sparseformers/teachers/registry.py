"""From what a user writes after ``--teacher`` to a teacher."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from torch import nn

from sparseformers.errors import MissingExtraError, TeacherError, suggest
from sparseformers.teachers.base import Teacher

KINDS = ("timm", "open_clip", "hf", "bundled")
"""What a teacher's name begins with."""

BUNDLED_SIZE = 224
"""Side in pixels that the bundled teacher runs at unless told otherwise (its own is 518)."""


def load_teacher(teacher: str | nn.Module, *, image_size: int | None = None, crop: float | None = None) -> Teacher:
    """Loads a teacher.

    Args:
        teacher: ``timm:NAME``, ``timm:NAME@FILE``, ``open_clip:ARCH/TAG``, ``open_clip:ARCH@FILE``, ``hf:REPO`` (or a
            folder in its format), ``bundled``, a timm ``VisionTransformer``, or a teacher, which is returned as it is.
        image_size: side in pixels to run it at, if not its own.
        crop: share of the shorter side that its central crop keeps, if not its own.

    Raises:
        TeacherError: if it is unknown, cannot be fetched, or cannot be inherited from.
        WeightsError: if its weights cannot be read or do not fit.
        MissingExtraError: if the library that it comes from is not installed.
    """
    if isinstance(teacher, Teacher):
        return teacher
    if isinstance(teacher, nn.Module):
        from sparseformers.teachers import timm

        return timm.from_module(teacher, image_size=image_size, crop=crop)
    kind, _, rest = teacher.partition(":")
    name, at, file = rest.partition("@")
    if kind not in KINDS or (kind == "bundled") == bool(rest) or (kind != "hf" and bool(at) != bool(file)):
        raise TeacherError(f"'{teacher}' names no teacher.", _how_to_name(kind, rest))
    options = {"image_size": image_size, "crop": crop}
    if kind == "timm":
        from sparseformers.teachers import timm

        return timm.from_file(name, Path(file), **options) if file else timm.from_hub(name, **options)  # type: ignore[arg-type]
    if kind == "open_clip":
        open_clip = _import_adapter("open_clip")
        return open_clip.from_file(name, Path(file), **options) if file else open_clip.from_hub(rest, **options)
    if kind == "hf":
        return _import_adapter("huggingface").from_hub(rest, **options)
    return _import_adapter("bundled").load(image_size=BUNDLED_SIZE if image_size is None else image_size, crop=crop)


def absolute_name(teacher: str) -> str:
    """A teacher's name that means the same from any working directory: local files and folders made absolute."""
    name, at, file = teacher.partition("@")
    kind, _, rest = name.partition(":")
    if at and file:
        architecture = f"{kind}:{Path(rest).absolute()}" if rest.endswith(".json") else name
        return f"{architecture}@{Path(file).absolute()}"
    return f"hf:{Path(rest).absolute()}" if kind == "hf" and Path(rest).is_dir() else teacher


def untrained_teacher(architecture: str, *, image_size: int | None = None) -> Teacher:
    """A timm architecture with random weights: to measure what it costs, which does not depend on them.

    Args:
        architecture: timm's name, for example ``vit_base_patch16_224``.
        image_size: side in pixels to run it at, if not its own.

    Raises:
        TeacherError: if timm does not know it, or it cannot be inherited from.
    """
    from sparseformers.teachers import timm

    return timm.untrained(architecture, image_size=image_size)


def _import_adapter(adapter: str):  # type: ignore[no-untyped-def]
    """Imports an adapter whose host library comes with an extra."""
    packages = {
        "open_clip": ("open_clip", "open-clip"),
        "huggingface": ("transformers", "huggingface"),
        "bundled": ("onnx", "demo"),
    }
    package, extra = packages[adapter]
    if importlib.util.find_spec(package) is None:  # not imported here: torchvision has to be made importable first
        raise MissingExtraError.for_package(package, extra)
    return importlib.import_module(f"sparseformers.teachers.{adapter}")


def _how_to_name(kind: str, rest: str) -> str:
    forms = "Write timm:NAME, timm:NAME@FILE, open_clip:ARCH/TAG, open_clip:ARCH@FILE, hf:REPO or bundled."
    if kind in KINDS:
        return forms
    near = suggest(kind, KINDS)
    if not rest and kind.startswith(("vit_", "deit")):
        near = f"Did you mean 'timm:{kind}'?"
    return f"{near} {forms}".strip()
