"""Runs that several tests read are made once, and costs are counted once for each kind of student."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sparseformers.teachers import Teacher
from sparseformers.train import BootstrapConfig, bootstrap, run
from sparseformers.train.callbacks.summary import Costs, measure_costs
from sparseformers.train.setup import Parts
from tests.train.runs import each_checkpoint_awaited, tiny_settings

_COSTS: dict[object, Costs] = {}


def _remembered_costs(parts: Parts) -> Costs:
    """The costs of a run, counted once for each kind of student."""
    key = (str(parts.inheritance.student.config), str(parts.teacher.anatomy), parts.size)
    if key not in _COSTS:
        _COSTS[key] = measure_costs(parts)
    return _COSTS[key]


@pytest.fixture(autouse=True)
def _costs_are_counted_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "measure_costs", _remembered_costs)
        yield


@pytest.fixture(scope="session")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> BootstrapConfig:
    """A run of six steps, whose photographs and teacher are not to be changed."""
    return tiny_settings(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="session")
def whole_run(shared_settings: BootstrapConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this run, finished, with all its files; not to be changed."""
    path = tmp_path_factory.mktemp("whole") / "run"
    bootstrap(shared_settings, path)
    return path


@pytest.fixture
def copied_run(whole_run: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def stepwise_run(shared_settings: BootstrapConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with its last three checkpoints, one after each step; not to be changed."""
    path = tmp_path_factory.mktemp("stepwise") / "run"
    with each_checkpoint_awaited():
        bootstrap(shared_settings.with_(checkpoint_every="1step"), path)
    return path


@pytest.fixture
def stopped_run(stepwise_run: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed, as if it had been killed right before its last checkpoint."""
    run = Path(shutil.copytree(stepwise_run, tmp_path / "run"))
    (run / "README.md").unlink()
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    return run


@pytest.fixture
def settings(tmp_path: Path) -> BootstrapConfig:
    """A run of six steps, with photographs and a teacher of its own in ``tmp_path``."""
    return tiny_settings(tmp_path)


@pytest.fixture
def cached_settings(tmp_path: Path) -> BootstrapConfig:
    """A run of three steps on a cache of two views of each photograph."""
    cache: dict[str, object] = {"cache_teacher": tmp_path / "cache", "cached_views": 2}
    return tiny_settings(tmp_path, photographs=9).with_(samples=12, evaluations=1, **cache)


@pytest.fixture
def teacher_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of a teacher had."""
    calls: list[int] = []
    original = Teacher.forward

    def counting(self: Teacher, images: torch.Tensor) -> object:
        calls.append(len(images))
        return original(self, images)

    monkeypatch.setattr(Teacher, "forward", counting)
    return calls
