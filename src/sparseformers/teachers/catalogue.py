"""What can be inherited from, of all that the installed host libraries know by name; nothing is fetched."""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from sparseformers.config import RelativeConfig, RotaryConfig
from sparseformers.errors import SparseFormersError
from sparseformers.teachers.base import Teacher

FAMILIES = {
    "sapiens2": "Sapiens2",
    "lingbot": "LingBot-Vision",
    "dinov3": "DINOv3",
    "dinov2": "DINOv2",
    "dino": "DINO",
    "siglip2": "SigLIP 2",
    "v2_webli": "SigLIP 2",
    "siglip": "SigLIP",
    "radio": "RADIO",
    "naflexvit": "NaFlexViT",
    "aimv2": "AIMv2",
    "eva02": "EVA-02",
    "eva": "EVA",
    "pe_": "Perception Encoder",
    "pe-": "Perception Encoder",
    "beit3": "BEiT-3",
    "beitv2": "BEiT v2",
    "beit": "BEiT",
    "relpos": "ViT, relative positions",
    "rope": "ViT, rotary positions",
    "clip": "CLIP",
    "deit3": "DeiT III",
    "deit": "DeiT",
    "mae": "MAE",
    "ijepa": "I-JEPA",
}
"""Families by parts of their names in host libraries, the more special first; the others are plain ViTs."""


@dataclass(frozen=True, kw_only=True)
class KnownTeacher:
    """A teacher by its name; without what only a teacher that can be inherited from has, where it cannot."""

    name: str
    """As for ``--teacher``."""
    family: str
    licence: str | None = None
    refused: str | None = None
    """Why it cannot be inherited from; None if it can."""
    teacher: Teacher | None = None
    """Without weights, on PyTorch's meta device."""

    @property
    def positions(self) -> str:
        """Where its positions are: in its tokens, in the rotation of queries and keys, in a bias on attention, or both."""
        assert self.teacher is not None
        kinds = {RotaryConfig: "rotary", RelativeConfig: "relative"}
        in_attention = kinds.get(type(self.teacher.anatomy.positions))
        in_tokens = "absolute" if self.teacher.has_positions else None
        return " + ".join(kind for kind in (in_tokens, in_attention) if kind) or "none"


def known_teachers(pattern: str = "") -> list[Callable[[], list[KnownTeacher]]]:
    """One call for each architecture that a name with ``pattern`` in it (or that it matches, as in a shell) has.

    A call builds the architecture without memory, which takes a third of a second, and gives the teachers of all its tags.
    """
    calls: list[Callable[[], list[KnownTeacher]]] = []
    for host, package in (("timm", "timm"), ("open_clip", "open_clip")):
        if importlib.util.find_spec(package) is None:
            continue
        adapter = importlib.import_module(f"sparseformers.teachers.{host}")
        for architecture, names in adapter.architectures().items():
            wanted = {name: licence for name, licence in names.items() if _matches(name, pattern)}
            if wanted:
                calls.append(partial(_known, adapter.on_meta, architecture, wanted))
    return calls


def _known(build: Callable[[str], Teacher], architecture: str, names: Mapping[str, str | None]) -> list[KnownTeacher]:
    teacher, reason = None, None
    try:
        teacher = build(architecture)
    except SparseFormersError as error:
        reason = error.problem.partition(" cannot be inherited from yet: ")[2] or error.problem
    return [
        KnownTeacher(name=name, family=family_of(name), licence=licence, refused=reason, teacher=teacher)
        for name, licence in names.items()
    ]


def family_of(name: str) -> str:
    """The family of a teacher, by its name."""
    return next((family for part, family in FAMILIES.items() if re.search(rf"(?<![a-z]){part}", name.lower())), "ViT")


def _matches(name: str, pattern: str) -> bool:
    plain, wanted = name.lower(), pattern.lower()
    return wanted in plain or fnmatch.fnmatch(plain, wanted)
