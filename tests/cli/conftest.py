"""What the tests of several commands start from."""

import shutil
from pathlib import Path

import pytest

from sparseformers.train import RunFolder
from tests.cli.command import Command
from tests.tiny import write_images, write_teacher


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    """The name of a tiny teacher."""
    return write_teacher(tmp_path / "teacher.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of ten photographs."""
    write_images(tmp_path / "photos", 10)
    return tmp_path / "photos"


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> Path:
    """The folder of a finished run, to be changed."""
    return Path(shutil.copytree(finished.path, tmp_path / "run"))


@pytest.fixture(autouse=True)
def _read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of images is no work for other processes, and no machine is asked for its fastest precision."""
    for module in ("evaluation.embeddings", "evaluation.run", "embedding.run"):
        monkeypatch.setattr(f"sparseformers.{module}.default_workers", lambda: 0)
    monkeypatch.setattr("sparseformers.modes._seconds_of_product", lambda *_given: 1.0)
