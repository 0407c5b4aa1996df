"""The functions that give a student, as users have them: what they give can be saved to a folder and pushed to a hub."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, ParamSpec

from sparseformers import official, saving
from sparseformers.hosts.hub import SparseFormer
from sparseformers.inherit import Inheritance as CoreInheritance
from sparseformers.inherit import InheritReport, Provenance
from sparseformers.inherit import inherit as inherit_core
from sparseformers.model.sparseformer import SparseFormer as CoreSparseFormer

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


create_model = _shared(official.create_model)
load_official = _shared(official.load_official)
inherit = _shared_inheritance(inherit_core)
