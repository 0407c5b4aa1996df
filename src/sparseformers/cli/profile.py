"""``sparseformers profile``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import tyro
from rich.console import Console

from sparseformers.cli.output import console_for, print_json
from sparseformers.errors import ConfigError, SparseFormersError, suggest
from sparseformers.evaluation import measure_profile, profile_table
from sparseformers.inheritance import count_parameters, freeze_inherited, split_depth
from sparseformers.model import SparseFormer
from sparseformers.modes import autocast_dtype, resolve_precision
from sparseformers.named import NAMED_CONFIGS, TEACHER_ARCHITECTURES, named_config
from sparseformers.processes import process_state
from sparseformers.saving import load_saved
from sparseformers.teachers import Teacher, load_teacher, untrained_teacher


class _Subject(NamedTuple):
    """What to measure."""

    student: SparseFormer
    teacher: Teacher | None
    groups: dict[str, int] | None
    """Parameters by what bootstrapping does with them; None for a model that was not inherited."""


@dataclass(frozen=True)
class Profile:
    """Measure what a student costs beside its teacher: parameters, multiply-adds, images a second and latency here.

    Example: sparseformers profile sf_base_augreg
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|NAME")]
    """A run folder, a model file, or a named size: sf_base_augreg, sf_large_augreg, sf_base_clip, sf_large_clip, sf_v1_tiny,
    sf_v1_small, sf_v1_base (v1 has no teacher)."""
    batches: tuple[int, ...] = (1, 16)
    """Batch sizes to time."""
    repeats: int = 10
    """Timed passes of each network at each batch size."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the matrix products, for both."""
    json: bool = False
    """Print the figures as JSON."""

    def __post_init__(self) -> None:
        if self.repeats < 1 or min(self.batches, default=1) < 1:
            raise ConfigError("Batch sizes and repeats must be at least 1.", "Use --batches 1 16 and --repeats 10, for example.")

    def run(self) -> None:
        """Runs the command."""
        console = console_for(as_json=self.json)
        device = process_state().device
        student, teacher, groups = self._named() if self.model in NAMED_CONFIGS else self._saved(console)
        precision = resolve_precision(self.precision, device)
        profile = measure_profile(
            student.to(device),
            student.config.preprocessing.size,
            teacher=None if teacher is None else teacher.to(device),
            parameter_groups=groups,
            batches=self.batches,
            repeats=self.repeats,
            device=device,
            autocast=autocast_dtype(precision),
        )
        if self.json:
            print_json(profile.to_dict() | {"model": self.model, "precision": precision, "device": str(device)})
        else:
            console.print(profile_table(profile, f"{self.model} on {device.type}, {precision}"))

    def _named(self) -> _Subject:
        """A named size with random weights, as bootstrapping would set it up; v1 as it is."""
        student = SparseFormer(named_config(self.model))
        if self.model not in TEACHER_ARCHITECTURES:
            return _Subject(student, None, None)
        teacher = untrained_teacher(TEACHER_ARCHITECTURES[self.model])
        freeze_inherited(student, split_depth(teacher.depth))
        return _Subject(student, teacher, count_parameters(student))

    def _saved(self, console: Console) -> _Subject:
        """A saved student, with its teacher if that can be had."""
        if not Path(self.model).exists():
            near = suggest(self.model, NAMED_CONFIGS)
            raise ConfigError(
                f"'{self.model}' is neither a run folder, nor a model file, nor a named size.",
                near or f"Named sizes are: {', '.join(NAMED_CONFIGS)}.",
            )
        student, provenance = load_saved(self.model)
        if provenance is None:
            return _Subject(student, None, None)
        freeze_inherited(student, provenance.shares)
        groups = count_parameters(student)
        try:
            teacher = load_teacher(provenance.teacher, image_size=provenance.image_size[0], crop=provenance.crop)
        except SparseFormersError as error:
            console.print(f"Without the teacher: {error.problem}", highlight=False, markup=False, soft_wrap=True)
            return _Subject(student, None, groups)
        return _Subject(student, teacher, groups)
