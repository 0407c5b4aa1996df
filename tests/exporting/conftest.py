from pathlib import Path

import pytest

from tests.tiny import write_images


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    write_images(folder, 12)
    return folder
