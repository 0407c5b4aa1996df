import pytest

from sparseformers.teachers import Teacher, load_teacher
from tests.tiny import SIDE, write_teacher


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return load_teacher(write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors"), image_size=SIDE)
