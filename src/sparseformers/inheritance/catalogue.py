"""What can be inherited from, with what it costs and what its default student will: counted by hand, as nothing is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sparseformers.config import CortexConfig
from sparseformers.inheritance.inheriting import default_tokens
from sparseformers.teachers import Teacher
from sparseformers.teachers.catalogue import KnownTeacher, known_teachers


@dataclass(frozen=True, kw_only=True)
class CatalogueRow:
    """A teacher in the catalogue."""

    name: str
    family: str
    licence: str | None
    refused: str | None
    """Why it cannot be inherited from; None if it can."""


@dataclass(frozen=True, kw_only=True)
class AcceptedRow(CatalogueRow):
    """One that can be inherited from."""

    parameters: int
    patch_size: int
    positions: str
    image_size: tuple[int, int]
    multiply_adds: int
    """Of an image of that height and width."""
    student_tokens: int
    student_multiply_adds: int
    """Of the student that ``bootstrap`` makes by default."""


def catalogue(pattern: str = "") -> list[Callable[[], list[CatalogueRow]]]:
    """One call for each architecture with ``pattern`` in a name; see :func:`sparseformers.teachers.catalogue.known_teachers`."""
    return [partial(_rows, call) for call in known_teachers(pattern)]


def _rows(call: Callable[[], list[KnownTeacher]]) -> list[CatalogueRow]:
    return [_row(known) for known in call()]


def _row(known: KnownTeacher) -> CatalogueRow:
    teacher = known.teacher
    if teacher is None:
        return CatalogueRow(name=known.name, family=known.family, licence=known.licence, refused=known.refused)
    tokens = default_tokens(teacher, "grid")
    return AcceptedRow(
        name=known.name,
        family=known.family,
        licence=known.licence,
        refused=None,
        parameters=sum(parameter.numel() for parameter in teacher.parameters()),
        patch_size=teacher.patch_size,
        positions=known.positions,
        image_size=teacher.preprocessing.size,
        multiply_adds=multiply_adds(teacher, teacher.patch_tokens),
        student_tokens=tokens,
        student_multiply_adds=multiply_adds(teacher, tokens),
    )


def multiply_adds(teacher: Teacher, patches: int) -> int:
    """Multiply-adds of a teacher's layers for an image of so many patches, or of a student with a grid of as many tokens."""
    anatomy = teacher.anatomy
    embedding = patches * 3 * teacher.patch_size**2 * anatomy.block.width
    return embedding + sum(_of_cortex(anatomy, patches))


def _of_cortex(anatomy: CortexConfig, patches: int) -> Iterator[int]:
    """Blocks, pooling, and what comes after."""
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
