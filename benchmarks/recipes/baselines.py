"""What a student has to beat: the teacher with as few tokens, and with merged tokens, neither of them trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from benchmarks.baselines import LowResolutionTeacher, TokenMergingTeacher, merged_for_budget
from benchmarks.recipes.measure import Measurement
from sparseformers.errors import SparseFormersError
from sparseformers.teachers import Teacher


class Baselines(NamedTuple):
    """Measurements by name, and why some are missing."""

    measurements: dict[str, Measurement]
    notes: tuple[str, ...]


def baseline_rows(
    teacher: Teacher,
    *,
    tokens: int,
    multiply_adds: int | None,
    measure: Callable[[str, Callable[[], nn.Module]], Measurement],
) -> Baselines:
    """Measures the untrained low-resolution teacher, and token merging on the teacher.

    Args:
        teacher: at the comparison's size.
        tokens: of the students; the low-resolution teacher has the square grid of patches that comes nearest.
        multiply_adds: of the costliest student, which token merging may spend; None if there is none.
        measure: judges a network that is made when it is needed, by the name that it is to have.
    """
    side = max(1, round(math.sqrt(tokens)))
    pixels = side * teacher.patch_size
    measurements = {}
    name = f"teacher at {pixels} px, {side * side} tokens"
    measurements[name] = measure(name, lambda: LowResolutionTeacher(teacher, side**2))
    if multiply_adds is None:
        return Baselines(measurements, ("Token merging has no row: no student says how many multiply-adds it may spend.",))
    try:
        constant, early = (merged_for_budget(teacher, multiply_adds, schedule=schedule) for schedule in ("constant", "early"))
    except SparseFormersError as error:
        return Baselines(measurements, (f"Token merging has no row: {error.problem}",))
    name = _merging_name("ToMe on the teacher", teacher, constant)
    measurements[name] = measure(name, lambda: TokenMergingTeacher(teacher, constant))
    # At a quarter of the cost the published schedule leaves hardly a token; to merge early, unweighted, is the best of it here.
    name = _merging_name("ToMe, merging in the first blocks", teacher, early)
    measurements[name] = measure(name, lambda: TokenMergingTeacher(teacher, early, proportional=False))
    return Baselines(measurements, ())


def _merging_name(what: str, teacher: Teacher, merged: tuple[int, ...]) -> str:
    return f"{what}, {teacher.patch_tokens - sum(merged)} of {teacher.patch_tokens} tokens left"
