"""Finds OpenCLIP's configuration and weights by what a user writes after ``open_clip:``, for image and text towers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import get_pretrained_cfg

from sparseformers.errors import TeacherError, shorten, suggest
from sparseformers.teachers.hubs import expect_hub, hub_errors

ANCHORS = ("visual.class_embedding", "visual.trunk.patch_embed.proj.weight", "class_embedding", "trunk.patch_embed.proj.weight")
"""A weight of the image tower inside a whole CLIP, or of what is the tower alone."""
NEEDED = ("embed_dim", "vision_cfg", "text_cfg")  # keys that OpenCLIP requires in the configuration of a model


@dataclass(frozen=True)
class Architecture:
    """The configuration of an OpenCLIP model."""

    name: str  # OpenCLIP's spelling of its name, or the path of a configuration file
    config: Mapping[str, Any]
    preprocessing: Mapping[str, Any]  # as a configuration file says; empty for an architecture that OpenCLIP knows by name

    @property
    def from_file(self) -> bool:
        return self.name.endswith(".json")


def find_architecture(name: str) -> Architecture:
    """Finds the architecture of OpenCLIP's name, or of a configuration file; raises TeacherError if there is none.
    The file ends in ``.json``: one of OpenCLIP's ``model_configs``, or the ``open_clip_config.json`` beside weights on a hub.
    """
    if name.endswith(".json"):
        return _read_configuration(Path(name))
    spelt, known = name.replace("/", "-"), open_clip.list_models()
    if spelt not in known:
        near = suggest(spelt, known) or "open_clip.list_models() lists them."
        raise TeacherError(f"OpenCLIP has no architecture of the name '{name}'.", near)
    return Architecture(spelt, open_clip.get_model_config(spelt), {})


def _read_configuration(path: Path) -> Architecture:
    if not path.is_file():
        raise TeacherError(f"There is no configuration file '{path}'.", "Check the path between 'open_clip:' and the '@'.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text
        raise TeacherError(f"The configuration '{path}' is not JSON ({error}).", "Write it again, or fetch it again.") from None
    config = content.get("model_cfg", content) if isinstance(content, dict) else None
    if not isinstance(config, dict) or (missing := [key for key in NEEDED if key not in config]):
        lacks = ", ".join(missing) if isinstance(config, dict) else "all keys"
        problem = f"The file '{path}' is no configuration of an OpenCLIP model: it lacks {lacks}."
        raise TeacherError(problem, "Give an open_clip_config.json, or a file in the form of OpenCLIP's own model_configs.")
    return Architecture(str(path), config, content.get("preprocess_cfg", {}))


@contextmanager
def configuration_errors(architecture: Architecture) -> Iterator[None]:
    """Raises one TeacherError for whatever OpenCLIP raises on a configuration file that it cannot build a tower from."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or not architecture.from_file:  # the former is of a hub
            raise
        problem = f"OpenCLIP cannot build a model by the configuration '{architecture.name}' ({type(error).__name__}: {error})."
        raise TeacherError(problem, "Compare it with OpenCLIP's own model_configs.") from error


def find(name: str) -> tuple[Architecture, dict[str, Any]]:
    """Finds OpenCLIP's architecture and its settings of the weights ARCH/TAG; raises TeacherError if there are none."""
    has_tag = "/" in name and not name.endswith(".json")
    arch, _, tag = name.rpartition("/") if has_tag else (name, "", "")
    architecture = find_architecture(arch)
    if architecture.from_file:
        problem = f"OpenCLIP has no weights for the configuration file '{architecture.name}'."
        raise TeacherError(problem, f"Name their file: open_clip:{architecture.name}@FILE.")
    if not (settings := get_pretrained_cfg(architecture.name, tag)):
        known = open_clip.list_pretrained_tags_by_model(architecture.name)
        lacks = f"'{architecture.name}' lacks a tag for its weights."
        what = f"OpenCLIP has no weights '{tag}' of {architecture.name}." if tag else lacks
        listed = f"Known are: {shorten(known)}." if known else f"It has none; give a file: open_clip:{architecture.name}@FILE."
        raise TeacherError(what, f"{suggest(tag, known)} {listed}".strip())
    return architecture, dict(settings)


def first_settings(architecture: Architecture) -> Mapping[str, Any]:
    """The preprocessing for weights from a file: the configuration file's, or that of OpenCLIP's first weights."""
    if architecture.from_file:
        return architecture.preprocessing
    tags = open_clip.list_pretrained_tags_by_model(architecture.name)
    return get_pretrained_cfg(architecture.name, tags[0]) if tags else {}


def fetch(name: str, architecture: Architecture, settings: Mapping[str, Any]) -> Path:
    """Fetches the file of the weights ``settings`` from OpenCLIP's cache or hub; ``name`` is what stood after ``open_clip:``."""
    with hub_errors(f"open_clip:{name}", by_hand=f"open_clip:{_by_hand(architecture.name, settings)}@FILE"):
        expect_hub(settings.get("hf_hub"))
        return Path(open_clip.download_pretrained(dict(settings)))


def _by_hand(architecture: str, settings: Mapping[str, Any]) -> str:
    """The architecture to name beside a file of these weights: a file does not say that it was made with quick GELU."""
    quick = f"{architecture}-quickgelu"
    return quick if settings.get("quick_gelu") and quick in open_clip.list_models() else architecture
