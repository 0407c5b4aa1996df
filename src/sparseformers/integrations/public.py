"""The functions that give a student, as users have them: what they give can be saved to a folder and pushed to a hub."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, ParamSpec

from sparseformers import released, saving
from sparseformers.errors import ConfigError, RunError, WeightsError, suggest
from sparseformers.inheritance import Inheritance as CoreInheritance
from sparseformers.inheritance import InheritReport, Provenance
from sparseformers.inheritance import inherit as inherit_core
from sparseformers.integrations.hub import SparseFormer
from sparseformers.model.sparseformer import SparseFormer as CoreSparseFormer
from sparseformers.named import NAMED_CONFIGS
from sparseformers.teachers.registry import KINDS

Parameters = ParamSpec("Parameters")


class Inheritance(NamedTuple):
    """A student with what is known of its making."""

    student: SparseFormer
    """Frozen parts have ``requires_grad`` off."""
    report: InheritReport
    """What was inherited and what is new."""
    provenance: Provenance
    """What is saved with its weights."""


def _shared(make: Callable[Parameters, CoreSparseFormer]) -> Callable[Parameters, SparseFormer]:
    @functools.wraps(make)
    def made(*positional: Parameters.args, **named: Parameters.kwargs) -> SparseFormer:
        return SparseFormer.of(make(*positional, **named))

    return made


def _shared_inheritance(make: Callable[Parameters, CoreInheritance]) -> Callable[Parameters, Inheritance]:
    @functools.wraps(make)
    def made(*positional: Parameters.args, **named: Parameters.kwargs) -> Inheritance:
        student, report, provenance = make(*positional, **named)
        return Inheritance(SparseFormer.of(student, provenance=provenance), report, provenance)

    return made


@functools.wraps(saving.load)
def load(run_or_file: str | Path) -> SparseFormer:  # noqa: D103  # saving.load's own says it
    return SparseFormer.from_path(Path(run_or_file))


def open_model(name: str | Path) -> SparseFormer:
    """A SparseFormer by whatever a user calls it, with trained weights.

    Args:
        name: a run folder, a model file of ours, a weight file of the authors (.pth or .safetensors; its shapes tell which
            network it is), or the name of a released model such as ``sf_base_augreg``, which is fetched once and then cached.

    Returns:
        The model in evaluation mode, with its provenance where it was bootstrapped here.

    Raises:
        ConfigError: if the name is that of a teacher.
        RunError: if there is nothing of that name, or the folder is no run or has no model yet.
        WeightsError: if the file cannot be fetched or read, was tampered with, or holds no SparseFormer.
    """
    text, path = str(name), Path(name)
    if text in NAMED_CONFIGS:
        return create_model(text, pretrained=True)
    if text.partition(":")[0] in KINDS and not path.exists():
        raise ConfigError(f"'{text}' is a teacher, and has no regions of interest.", "Give a student, such as a run folder.")
    if not path.exists():
        near = suggest(text, NAMED_CONFIGS) or f"Released models are {', '.join(NAMED_CONFIGS)}."
        raise RunError(f"There is no run folder, model file or released model '{text}'.", near)
    if path.is_dir() or saving.is_saved_model(path):
        return load(path)
    state = released.read_official(path)
    if not released.is_official(state):
        raise WeightsError(
            f"The file '{path}' is no SparseFormer and has no regions of interest: it carries no configuration of ours, and its "
            "weights are not named as the authors'.",
            "Give a run folder, its model.safetensors, or a file that the authors released.",
        )
    return load_official(state, activation=released.activation_of(state))


create_model = _shared(released.create_model)
load_official = _shared(released.load_official)
inherit = _shared_inheritance(inherit_core)
