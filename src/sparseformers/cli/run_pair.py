"""A student from a run or a file, with the teacher that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from sparseformers.config import GridConfig
from sparseformers.errors import ConfigError, TeacherError
from sparseformers.inheritance import Provenance
from sparseformers.model import SparseFormer, WithTokens
from sparseformers.processes import process_state
from sparseformers.saving import load_saved
from sparseformers.teachers import Teacher, load_teacher


class Pair(NamedTuple):
    """Student and teacher on the same device, at the size that they were aligned at."""

    student: SparseFormer | WithTokens
    """In evaluation mode."""
    teacher: Teacher
    """The very one that the student was made from."""
    provenance: Provenance
    """What is known of the student's making."""
    device: torch.device
    """Where both are."""


def load_teacher_of(provenance: Provenance, teacher: str | None = None) -> Teacher:
    """The very teacher that a student was made from, at the size that they were aligned at.

    Args:
        provenance: of the student.
        teacher: where to load it from, if not from where it was.

    Raises:
        TeacherError: if it cannot be had.
        WeightsError: if its weights are not those that the student was made from.
    """
    loaded = load_teacher(teacher or provenance.teacher, image_size=provenance.image_size[0], crop=provenance.crop)
    provenance.require_same_teacher(loaded.fingerprint())
    return loaded


def load_pair(path: Path, *, teacher: str | None = None, tokens: int | None = None) -> Pair:
    """Loads a student and its teacher.

    Args:
        path: a run folder or a model file.
        teacher: where to load the teacher from, if not from where it was.
        tokens: of the student, if other than configured.

    Raises:
        ConfigError: if the student cannot have that number of tokens.
        TeacherError: if the student does not say which teacher it had, or that one cannot be had.
        WeightsError: if the teacher's weights are not those that the student was made from.
    """
    student, provenance = load_saved(path)
    if provenance is None:
        raise TeacherError(
            f"The model '{path}' does not say which teacher it was made from.", "Use a model of a bootstrapping run."
        )
    loaded = load_teacher_of(provenance, teacher)
    device = process_state().device
    student.to(device)
    if tokens is not None:
        check_tokens(student, tokens, path)
    return Pair(student if tokens is None else WithTokens(student, tokens), loaded.to(device), provenance, device)


def check_tokens(student: SparseFormer, tokens: int, path: Path) -> None:
    """Raises ConfigError unless the student, loaded from ``path``, can have that number of tokens."""
    own = student.config.focusing
    if tokens != own.tokens and not isinstance(own, GridConfig):
        raise ConfigError(f"The model '{path}' has {own.tokens} tokens and no other number.", "Leave out --tokens.")
