from pathlib import Path

from sparseformers.data.sources import FolderSource
from sparseformers.errors import DataError
from sparseformers.train.settings import BootstrapConfig
from sparseformers.train.setup import can_read, gather_images, thin
from tests.refusals import refused
from tests.tiny import write_images


def test_thin__spreads_evenly_and_keeps_few() -> None:
    images = FolderSource(Path(str(number)) for number in range(10))
    assert thin(images, 100) is images
    assert [thin(images, 5).name(index) for index in range(5)] == ["0", "2", "4", "6", "8"]
    assert len(thin(images, 4)) <= 4


def test_can_read__stops_as_soon_as_it_knows(tmp_path: Path) -> None:
    good = write_images(tmp_path, 2)
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(b"nothing")
    assert can_read(FolderSource([bad, *good]), 2)
    assert can_read(FolderSource([good[0], tmp_path / "never_looked_at.jpg"]), 1)
    assert not can_read(FolderSource([bad, good[0]]), 2)
    assert not can_read(FolderSource([]), 1)


def test_gather_images__one_image_cannot_be_both(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    with refused(DataError, "held-out images can be read", "--eval-data"):
        gather_images(BootstrapConfig.of(teacher="bundled", data=(tmp_path,)))
