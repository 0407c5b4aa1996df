"""What tests of the benches share: a finished comparison, and a tiny student with its teacher on the disk."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.recipes import ComparisonConfig, open_comparison, recipe_rows, run_rows
from benchmarks.tests.recipes.conditions import Finished, tiny_comparison
from sparseformers.inheritance import inherit
from sparseformers.saving import save
from sparseformers.teachers import load_teacher
from tests.tiny import SIDE, write_teacher


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A comparison of one row and two seeds; tests read it only."""
    config = tiny_comparison(tmp_path_factory.mktemp("comparison"))
    return config, run_rows(open_comparison(config), recipe_rows(["paper"]), baselines=True)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Callable[..., ComparisonConfig]:
    """A copy of the finished comparison that may be changed, asked for with other options."""
    config, _ = finished
    shutil.copytree(config.out, tmp_path / "comparison")
    kept = {name: value for name, value in vars(config).items() if name != "out"}
    return lambda **changes: ComparisonConfig(**(kept | {"out": tmp_path / "comparison"} | changes))


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file whose teacher can be loaded."""
    folder = tmp_path_factory.mktemp("speed")
    teacher = load_teacher(write_teacher(folder / "teacher.safetensors"), image_size=SIDE)
    inherited = inherit(teacher, front="grid", tokens=4)
    save(inherited.student, folder / "student.safetensors", provenance=inherited.provenance)
    return folder / "student.safetensors"
