"""Small images that many tests read, and none changes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparseformers.data.shard_files import ShardFiles
from tests.tiny import write_images


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven small images of noise in a folder of their own."""
    folder, generator = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(7)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="session")
def picture_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six photographs of 96 x 72 pixels."""
    return write_images(tmp_path_factory.mktemp("pictures"), 6)


@pytest.fixture(scope="session")
def pictures(picture_files: list[Path]) -> list[bytes]:
    return [path.read_bytes() for path in picture_files]


@pytest.fixture
def files(tmp_path: Path) -> ShardFiles:
    """Copies of shards in a folder of their own, and no second attempts."""
    return ShardFiles(tmp_path / "cache", most_bytes=2**30, waits=())
