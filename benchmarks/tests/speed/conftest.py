"""A tiny student with its teacher on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparseformers.inheritance import inherit
from sparseformers.saving import save
from sparseformers.teachers import load_teacher
from tests.tiny import SIDE, write_teacher


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file whose teacher can be loaded."""
    folder = tmp_path_factory.mktemp("benchmark")
    teacher = load_teacher(write_teacher(folder / "teacher.safetensors"), image_size=SIDE)
    inherited = inherit(teacher, front="grid", tokens=4)
    save(inherited.student, folder / "student.safetensors", provenance=inherited.provenance)
    return folder / "student.safetensors"
