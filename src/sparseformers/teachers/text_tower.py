"""The text tower that belongs to a teacher, by the teacher's name."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from sparseformers.errors import MissingExtraError, TeacherError

if TYPE_CHECKING:
    from sparseformers.teachers.open_clip_text import TextTower


def load_text_tower(teacher: str) -> TextTower:
    """Loads the text tower of a teacher, which shares the space of its image embeddings.

    Args:
        teacher: ``open_clip:ARCH/TAG`` or ``open_clip:ARCH@FILE``, where FILE holds the whole CLIP.

    Raises:
        TeacherError: if the teacher has no text tower, or it cannot be had.
        WeightsError: if its weights cannot be read or do not fit.
        MissingExtraError: if OpenCLIP is not installed.
    """
    kind, _, rest = teacher.partition(":")
    if kind != "open_clip":
        raise TeacherError(
            f"The teacher '{teacher}' has no text tower that could be asked for words.",
            "Zero-shot figures and retrieval need a student of an OpenCLIP teacher (open_clip:ARCH/TAG).",
        )
    if importlib.util.find_spec("open_clip") is None:  # not imported here: torchvision has to be made importable first
        raise MissingExtraError.for_package("open_clip", "open-clip")
    adapter = importlib.import_module("sparseformers.teachers.open_clip_text")
    name, _, file = rest.partition("@")
    return adapter.from_file(name, Path(file)) if file else adapter.from_hub(rest)


def named_templates(name: str) -> tuple[str, ...]:
    """OpenCLIP's prompts for ImageNet, each a sentence with ``{}`` for the name of a class.

    Args:
        name: ``openai`` (80 prompts) or ``simple`` (7).

    Raises:
        MissingExtraError: if OpenCLIP is not installed.
    """
    if importlib.util.find_spec("open_clip") is None:
        raise MissingExtraError.for_package("open_clip", "open-clip")
    adapter = importlib.import_module("sparseformers.teachers.open_clip_text")
    templates: tuple[str, ...] = adapter.TEMPLATES[name]
    return templates
