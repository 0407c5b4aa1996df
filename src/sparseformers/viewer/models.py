"""The networks behind the page: one or two students, and their teacher where it can be had."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.colors import to_hex

from sparseformers.config import PreprocessingConfig
from sparseformers.errors import ConfigError, SparseFormersError
from sparseformers.figures import token_colours
from sparseformers.inheritance import Provenance
from sparseformers.model import SparseFormer
from sparseformers.named import NAMED_CONFIGS
from sparseformers.processes import process_state
from sparseformers.released import create_model, load_official
from sparseformers.saving import load_saved
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.teachers.registry import KINDS


@dataclass(frozen=True, eq=False)
class Model:
    """A student on its device, in evaluation mode."""

    name: str
    """As the user named it."""
    student: SparseFormer
    """The network."""
    provenance: Provenance | None
    """What is known of its making."""

    @property
    def preprocessing(self) -> PreprocessingConfig:
        """Of the images that it is given."""
        return self.student.config.preprocessing

    @property
    def tokens(self) -> int:
        """N."""
        return self.student.config.focusing.tokens

    @property
    def colours(self) -> list[str]:
        """N colours, #rrggbb, those of the figures."""
        return [to_hex(colour) for colour in token_colours(self.tokens)]


@dataclass(frozen=True, eq=False)
class Networks:
    """All that looks at an image."""

    models: tuple[Model, ...]
    """One, or two to compare."""
    teacher: Teacher | None
    """That of the first model, in evaluation mode."""
    teacher_problem: str | None
    """Why there is no teacher."""
    device: torch.device
    """Where they are."""

    @property
    def preprocessings(self) -> set[PreprocessingConfig]:
        """Of all of them."""
        of_teacher = set() if self.teacher is None else {self.teacher.preprocessing}
        return {model.preprocessing for model in self.models} | of_teacher


def load_networks(run: str, beside: str | None = None, teacher: str | None = None) -> Networks:
    """Loads one or two models and the teacher of the first.

    Args:
        run: a run folder, a model file, a released file (.pth) or a released model's name.
        beside: a second one.
        teacher: where to load the teacher from, if not from where it was.

    Raises:
        ConfigError: for a model that has no regions of interest.
        SparseFormersError: another one, if a model, or a teacher that was asked for, cannot be loaded.
    """
    device = process_state().device
    models = tuple(load_model(name) for name in (run, beside) if name is not None)
    for model in models:
        model.student.to(device).eval()
    found, problem = None, None
    try:
        found = _teacher_of(models[0], teacher)
    except SparseFormersError as error:
        if teacher is not None:
            raise
        problem = f"Without the teacher: {error.problem}"
    return Networks(models, None if found is None else found.to(device).eval(), problem, device)


def load_model(name: str) -> Model:
    """A student by the name that a user gives; see :func:`load_networks`."""
    if name.partition(":")[0] in KINDS and not Path(name).exists():
        raise ConfigError(f"'{name}' is a teacher, and has no regions of interest.", "Give a run folder or a model file.")
    if name in NAMED_CONFIGS and not Path(name).exists():
        return Model(name, create_model(name, pretrained=True), None)
    if Path(name).suffix == ".pth":
        return Model(name, load_official(name), None)
    return Model(name, *load_saved(name))


def _teacher_of(model: Model, asked: str | None) -> Teacher:
    """The teacher that a model was made from, or the one asked for; raises SparseFormersError if it cannot be had."""
    origin = model.provenance
    if origin is None and asked is None:
        raise ConfigError(f"The model '{model.name}' does not say which teacher it was made from.", "Name it by --teacher.")
    if origin is None:
        preprocessing = model.preprocessing
        return load_teacher(str(asked), image_size=preprocessing.size[0], crop=preprocessing.crop)
    teacher = load_teacher(asked or origin.teacher, image_size=origin.image_size[0], crop=origin.crop)
    origin.require_same_teacher(teacher.fingerprint())
    return teacher
