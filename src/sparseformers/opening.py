"""A student and the teacher that it was made from, by whatever a user gives: a path, a name, or the module itself."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from torch import nn

from sparseformers import released
from sparseformers.config import GridConfig, MixedResolutionConfig
from sparseformers.errors import ConfigError, RunError, SparseFormersError, TeacherError, WeightsError, suggest
from sparseformers.model import SparseFormer, WithTokens
from sparseformers.named import NAMED_CONFIGS
from sparseformers.processes import process_state
from sparseformers.saving import SavedModel, is_saved_model, load_saved
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.teachers.registry import KINDS

Model: TypeAlias = str | Path | SparseFormer
"""A run folder, a model file, a weight file of the authors, the name of a released model, or a student itself."""

GivenTeacher: TypeAlias = str | nn.Module
"""The name of a teacher, a network of a host library, or a :class:`~sparseformers.teachers.Teacher` itself."""


class Pair(NamedTuple):
    """Student and teacher on one device, at the size that they were aligned at."""

    student: SparseFormer
    teacher: Teacher
    device: torch.device


def open_student(model: Model) -> SavedModel:
    """A student with trained weights, and what is known of its making; raises as :func:`sparseformers.open_model`.

    A student itself is returned as it is; a weight file of the authors tells by its shapes which network it is; a released model
    such as ``sf_base_augreg`` is fetched once and then cached.
    """
    if isinstance(model, SparseFormer):
        return SavedModel(model, getattr(model, "provenance", None))
    if not isinstance(model, str | Path):
        problem = f"A student is a SparseFormer, or the name of one, not {type(model).__name__}."
        raise ConfigError(problem, "Give what sparseformers.load returns, or a run folder.")
    name, path = str(model), Path(model)
    if name in NAMED_CONFIGS and not path.exists():
        return SavedModel(released.create_model(name, pretrained=True), None)
    if not path.exists():
        if name.partition(":")[0] in KINDS:
            raise ConfigError(f"'{name}' is a teacher, and has no regions of interest.", "Give a student, such as a run folder.")
        near = suggest(name, NAMED_CONFIGS) or f"Released models are {', '.join(NAMED_CONFIGS)}."
        raise RunError(f"There is no run folder, model file or released model '{name}'.", near)
    if path.is_dir() or is_saved_model(path):
        return load_saved(path)
    state = released.read_official(path)
    if not released.is_official(state):
        problem = f"The file '{path}' is no SparseFormer and has no regions of interest: it carries no configuration of ours, "
        problem += "and its weights are not named as the authors'."
        raise WeightsError(problem, "Give a run folder, its model.safetensors, or a file that the authors released.")
    return SavedModel(released.load_official(state, activation=released.activation_of(state)), None)


def open_teacher(saved: SavedModel, teacher: GivenTeacher | None = None, *, name: str = "the model") -> Teacher:
    """The very teacher that a student was made from, at the size that they were aligned at.

    ``teacher`` is given if it is not to be loaded from the place where it was; any will do for a student that does not say which
    teacher it was made from. ``name`` is the student's, for errors. Raises TeacherError if it cannot be had, and WeightsError if
    its weights are not those that the student was made from.
    """
    origin, own = saved.provenance, saved.student.config.preprocessing
    if teacher is None and origin is None:
        problem = f"The model '{name}' does not say which teacher it was made from."
        raise TeacherError(problem, "Use a model of a bootstrapping run, or name one with --teacher.")
    size, crop = (own.size, own.crop) if origin is None else (origin.image_size, origin.crop)
    if teacher is not None:
        loaded = teacher if isinstance(teacher, Teacher) else load_teacher(teacher, image_size=size, crop=crop)
    else:
        assert origin is not None
        try:
            loaded = load_teacher(origin.teacher, image_size=size, crop=crop)
        except SparseFormersError as error:
            problem = f"The teacher of '{name}' cannot be loaded from where it was: {error.problem}"
            raise TeacherError(problem, "Say where it is now with --teacher.") from error
    if origin is not None:
        origin.require_same_teacher(loaded.fingerprint())
    return loaded


def open_teacher_if_there(
    saved: SavedModel, teacher: GivenTeacher | None = None, *, name: str = "the model"
) -> tuple[Teacher | None, str | None]:
    """As :func:`open_teacher`; a teacher that was not asked for may be missing, and the second value tells why."""
    try:
        return open_teacher(saved, teacher, name=name), None
    except SparseFormersError as error:
        if teacher is not None:
            raise
        return None, f"Without the teacher: {error.problem}"


def open_pair(model: Model, teacher: GivenTeacher | None = None) -> Pair:
    """A student and its teacher on this process's device; raises as :func:`open_student` and :func:`open_teacher`."""
    saved, device = open_student(model), process_state().device
    return Pair(saved.student.to(device), open_teacher(saved, teacher, name=model_name(model)).to(device), device)


def with_tokens(student: SparseFormer, tokens: int | None, name: str) -> SparseFormer | WithTokens:
    """The student at another number of tokens; raises ConfigError if it cannot have that number."""
    own = student.config.focusing
    if tokens is None or tokens == own.tokens:
        return student
    try:
        own.check_tokens(tokens)
    except ValueError as error:
        raise ConfigError(f"The model '{name}' cannot have {tokens} tokens: {error}.", "Leave out --tokens.") from None
    if isinstance(own, GridConfig | MixedResolutionConfig):
        height, width = student.config.preprocessing.size
        refuse_more_tokens(tokens, (height // own.patch_size) * (width // own.patch_size))
    return WithTokens(student, tokens)


def refuse_more_tokens(tokens: int, patches: int) -> None:
    """Raises ConfigError for more latent tokens than a teacher has patches in an image."""
    if tokens > patches:
        problem = f"{tokens} latent tokens are more than the {patches} patches that the teacher has in an image."
        raise ConfigError(problem, f"Use {patches} or fewer; by default it is a quarter of them.")


def model_name(model: Model) -> str:
    """The name of a model for titles and errors."""
    return "the model" if isinstance(model, SparseFormer) else str(model)
