"""The models to measure: a student, and whatever else could do its work at its cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from torch import nn

from benchmarks.baselines import TokenMergingTeacher, merged_for_budget
from benchmarks.speed.small_vits import small_vits
from sparseformers.config import PreprocessingConfig
from sparseformers.errors import ConfigError, SparseFormersError, suggest
from sparseformers.evaluation import Cost, measure_cost
from sparseformers.evaluation.rebuilt import RebuiltTeacher
from sparseformers.exporting.network import EmbeddingNetwork
from sparseformers.inference import fold_embedding
from sparseformers.model import SparseFormer
from sparseformers.named import NAMED_CONFIGS, TEACHER_ARCHITECTURES, named_config
from sparseformers.profiling.backends import Embedding
from sparseformers.saving import load_saved
from sparseformers.teachers import Teacher, load_teacher, untrained_teacher

KINDS = ("student", "teacher", "tome", "low-resolution", "small-vit")
"""Models that can be compared without naming them."""


@dataclass(frozen=True)
class Subject:
    """A model to be measured, in float32 on the CPU: images to embeddings, and the cost of one image."""

    name: str
    description: str
    network: nn.Module
    cost: Cost
    preprocessing: PreprocessingConfig

    @property
    def student(self) -> SparseFormer | None:
        """The student that it is, if it is one."""
        network = self.network.network if isinstance(self.network, Embedding) else None
        return network if isinstance(network, SparseFormer) else None

    @cached_property
    def folded(self) -> Subject:
        """The same ready for inference, with the cost of that: a student folded for its embedding, anything else as it is."""
        if self.student is None:
            return self
        network = fold_embedding(self.student)
        return replace(self, network=network, cost=measure_cost(network, self.preprocessing.size))

    def portable(self) -> nn.Module:
        """That of parts which all formats of files can express; a student's is what ``export`` writes."""
        return self.network if self.student is None else EmbeddingNetwork(self.student)


class Subjects(NamedTuple):
    """The models in the order in which they were named, and a line for each that there is not."""

    found: tuple[Subject, ...]
    left_out: tuple[str, ...]


class _Origin(NamedTuple):
    """A student, and where it and its teacher come from; ``teacher`` raises a SparseFormersError where there is none."""

    student: SparseFormer
    description: str
    teacher: Callable[[], Teacher]


def find_subjects(model: str, names: Sequence[str]) -> Subjects:
    """Loads or makes what is to be measured.

    Args:
        model: the student: a run folder, a model file or a named size, which gets random weights.
        names: the kinds of :data:`KINDS`, and further students.

    Raises:
        SparseFormersError: if a student cannot be had; what else cannot is left out.
    """
    origin = _origin(model)
    student = subject("student", origin.description, origin.student, origin.student.config.preprocessing)
    found: list[Subject] = []
    left_out: list[str] = []
    teacher: Teacher | None = None
    if {"teacher", "tome", "low-resolution"} & {*names}:
        try:
            teacher = origin.teacher()
        except SparseFormersError as error:
            left_out.append(f"teacher, tome and low-resolution: {error.problem}")
    for name in dict.fromkeys(names):
        try:
            found += _subjects(name, student, origin.student, teacher)
        except SparseFormersError as error:
            if name not in KINDS:
                raise
            left_out.append(f"{name}: {error.problem}")
    return Subjects(tuple(found), tuple(left_out))


def _subjects(name: str, student: Subject, network: SparseFormer, teacher: Teacher | None) -> list[Subject]:
    """The models that a name of ``--models`` means."""
    if name == "student":
        return [student]
    if name == "small-vit":
        vits = small_vits(student.cost.multiply_adds, unlike_width=None if teacher is None else teacher.anatomy.block.width)
        return [subject(vit.name, "random weights", vit.network, vit.network.preprocessing) for vit in vits]
    if name not in KINDS:
        other = _origin(name)
        return [subject(name, other.description, other.student, other.student.config.preprocessing)]
    if teacher is None:
        return []  # of which a line tells already
    return [_of_teacher(name, teacher, student, network.config.focusing.tokens)]


def _of_teacher(name: str, teacher: Teacher, student: Subject, tokens: int) -> Subject:
    """The teacher, or what can be made of it without training."""
    preprocessing = teacher.preprocessing
    if name == "teacher":
        return subject(name, teacher.identity.name, teacher, preprocessing)
    if name == "tome":
        merged = _schedule(teacher, student.cost.multiply_adds)
        left = teacher.patch_tokens - sum(merged)
        text = f"token merging on the teacher, {left} of {teacher.patch_tokens} tokens left at the end"
        return subject(name, text, TokenMergingTeacher(teacher, merged), preprocessing)
    side = max(1, round(math.sqrt(tokens)))
    small = RebuiltTeacher(teacher, grid=(side, side))
    # Its images come as small as it takes them: whoever runs it so decodes them so.
    return subject(name, f"the teacher with {side * side} tokens", small, replace(preprocessing, size=small.size))


def _schedule(teacher: Teacher, multiply_adds: int) -> tuple[int, ...]:
    """As published, the same number in each block; where that runs out of tokens, as many as possible in the first ones."""
    try:
        return merged_for_budget(teacher, multiply_adds)
    except ConfigError:
        return merged_for_budget(teacher, multiply_adds, schedule="early")


def subject(name: str, description: str, network: nn.Module, preprocessing: PreprocessingConfig) -> Subject:
    """A network whose output has an ``embedding`` as it is measured; the size of its images is added to the description."""
    network = network.eval().requires_grad_(False)
    height, width = preprocessing.size
    return Subject(
        name, f"{description}, {height} x {width}", Embedding(network), measure_cost(network, preprocessing.size), preprocessing
    )


def _origin(model: str) -> _Origin:
    """A student by what a user calls it."""
    if model in NAMED_CONFIGS:
        return _Origin(SparseFormer(named_config(model)), f"{model}, random weights", lambda: _untrained_teacher(model))
    if not Path(model).exists():
        near = suggest(model, [*NAMED_CONFIGS, *KINDS])
        raise ConfigError(
            f"'{model}' is neither a run folder, nor a model file, nor a named size.",
            near or f"Named sizes are: {', '.join(NAMED_CONFIGS)}.",
        )
    student, provenance = load_saved(model)

    def teacher() -> Teacher:
        if provenance is None:
            raise ConfigError(f"The model '{model}' does not say which teacher it was made from.", "Use one of a run.")
        return load_teacher(provenance.teacher, image_size=provenance.image_size, crop=provenance.crop)

    return _Origin(student, Path(model).name, teacher)


def _untrained_teacher(name: str) -> Teacher:
    if name not in TEACHER_ARCHITECTURES:
        raise ConfigError(f"The size {name} has no teacher.", "Choose another size, or a run.")
    return untrained_teacher(TEACHER_ARCHITECTURES[name])
