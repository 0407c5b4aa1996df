"""What can be inherited from, of all that the installed host libraries know by name, with what it and its default student cost.

Nothing is fetched, and costs are counted by hand, as no network is given memory.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from sparseformers.config import CortexConfig, RelativeConfig, RotaryConfig
from sparseformers.errors import SparseFormersError
from sparseformers.inheritance.inheriting import default_tokens
from sparseformers.teachers import Teacher
from sparseformers.teachers.hubs import first_named

FAMILIES = {
    "Sapiens2": ("sapiens2",),
    "LingBot-Vision": ("lingbot",),
    "DINOv3": ("dinov3",),
    "DINOv2": ("dinov2",),
    "DINO": ("dino",),
    "SigLIP 2": ("siglip2", "v2_webli"),
    "SigLIP": ("siglip",),
    "RADIO": ("radio",),
    "NaFlexViT": ("naflexvit",),
    "AIMv2": ("aimv2",),
    "EVA-02": ("eva02",),
    "EVA": ("eva",),
    "Perception Encoder": ("pe_", "pe-"),
    "BEiT-3": ("beit3",),
    "BEiT v2": ("beitv2",),
    "BEiT": ("beit",),
    "ViT, relative positions": ("relpos",),
    "ViT, rotary positions": ("rope",),
    "CLIP": ("clip",),
    "DeiT III": ("deit3",),
    "DeiT": ("deit",),
    "MAE": ("mae",),
    "I-JEPA": ("ijepa",),
}  # families, and parts of their names in host libraries, the more special first; the others are plain ViTs


@dataclass(frozen=True, kw_only=True)
class CatalogueRow:
    """A teacher in the catalogue."""

    name: str  # as for --teacher
    family: str
    licence: str | None
    refused: str | None  # why it cannot be inherited from; None if it can


@dataclass(frozen=True, kw_only=True)
class AcceptedRow(CatalogueRow):
    """One that can be inherited from."""

    parameters: int
    patch_size: int
    positions: str
    image_size: tuple[int, int]
    multiply_adds: int  # of an image of that height and width
    student_tokens: int
    student_multiply_adds: int  # of the student that ``bootstrap`` makes by default


def catalogue(pattern: str = "") -> list[Callable[[], list[CatalogueRow]]]:
    """One call for each architecture that a name with ``pattern`` in it (or that it matches, as in a shell) has.
    A call builds the architecture without memory, which takes a third of a second, and gives the teachers of all its tags.
    """
    calls: list[Callable[[], list[CatalogueRow]]] = []
    for host in ("timm", "open_clip"):
        if importlib.util.find_spec(host) is None:
            continue
        adapter = importlib.import_module(f"sparseformers.teachers.{host}")
        for architecture, names in adapter.architectures().items():
            wanted = {name: licence for name, licence in names.items() if _matches(name.lower(), pattern.lower())}
            if wanted:
                calls.append(partial(_rows, adapter.on_meta, architecture, wanted))
    return calls


def _matches(name: str, pattern: str) -> bool:
    return pattern in name or fnmatch.fnmatch(name, pattern)


def _rows(build: Callable[[str], Teacher], architecture: str, names: Mapping[str, str | None]) -> list[CatalogueRow]:
    named = [(name, family_of(name), licence) for name, licence in names.items()]
    try:
        teacher = build(architecture)
    except SparseFormersError as error:
        reason = error.problem.partition(" cannot be inherited from yet: ")[2] or error.problem
        return [CatalogueRow(name=name, family=family, licence=licence, refused=reason) for name, family, licence in named]
    tokens = default_tokens(teacher, "grid")
    return [
        AcceptedRow(
            name=name,
            family=family,
            licence=licence,
            refused=None,
            parameters=sum(parameter.numel() for parameter in teacher.parameters()),
            patch_size=teacher.patch_size,
            positions=_positions(teacher),
            image_size=teacher.preprocessing.size,
            multiply_adds=multiply_adds(teacher, teacher.patch_tokens),
            student_tokens=tokens,
            student_multiply_adds=multiply_adds(teacher, tokens),
        )
        for name, family, licence in named
    ]


def family_of(name: str) -> str:
    """The family of a teacher, by its name."""
    return first_named(FAMILIES, name) or "ViT"


def _positions(teacher: Teacher) -> str:
    """Where a teacher's positions are: in its tokens, in the rotation of queries and keys, in a bias on attention, or both."""
    in_attention = {RotaryConfig: "rotary", RelativeConfig: "relative"}.get(type(teacher.anatomy.positions))
    in_tokens = "absolute" if teacher.has_positions else None
    return " + ".join(kind for kind in (in_tokens, in_attention) if kind) or "none"


def multiply_adds(teacher: Teacher, patches: int) -> int:
    """Multiply-adds of a teacher's layers for an image of so many patches, or of a student with a grid of as many tokens."""
    anatomy = teacher.anatomy
    embedding = patches * 3 * teacher.patch_size**2 * anatomy.block.width
    return embedding + sum(_of_cortex(anatomy, patches))


def _of_cortex(anatomy: CortexConfig, patches: int) -> Iterator[int]:
    block, tokens = anatomy.block, patches + anatomy.prefix_tokens
    width, hidden = block.width, block.feed_forward_width
    attention = 4 * tokens * width**2 + 2 * tokens**2 * width
    yield anatomy.depth * (attention + (3 if block.gated else 2) * tokens * width * hidden)
    if anatomy.pooling == "attention":
        attended = tokens if anatomy.pool_prefix_tokens else patches
        pool_width = hidden if anatomy.attention_pool_width is None else anatomy.attention_pool_width
        yield 2 * (1 + attended) * width**2 + 2 * attended * width + (3 if block.gated else 2) * width * pool_width
    yield width * (anatomy.projection or 0)
    yield anatomy.embedding_width * (anatomy.classes or 0) * (2 if anatomy.distilled else 1)
