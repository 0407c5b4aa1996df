from pathlib import Path

import pytest
import torch

from sparseformers.data import SkippedImages
from sparseformers.errors import DataError
from sparseformers.processes import make_accelerator
from sparseformers.train import BootstrapConfig
from sparseformers.train.held_out import HeldOut, first_views, rois_move
from sparseformers.train.setup import gather_parts
from tests.tiny import write_images
from tests.train.runs import focusing


def held_out_of(settings: BootstrapConfig) -> HeldOut:
    return HeldOut(gather_parts(settings, device=torch.device("cpu")), SkippedImages(), make_accelerator())


@pytest.fixture
def measured_on(settings: BootstrapConfig, tmp_path: Path) -> BootstrapConfig:
    """A run that is measured on seven images."""
    write_images(tmp_path / "evaluation", 7, seed=5)
    return settings.with_(eval_data=(tmp_path / "evaluation",))


def test_measure__does_not_depend_on_the_batches(measured_on: BootstrapConfig) -> None:
    measurements = []
    for size in (2, 7):
        held_out = held_out_of(measured_on.with_(batch_size=size))
        measurements.append(held_out.measure(held_out.parts.inheritance.student))
    one, other = measurements
    assert torch.equal(one.indices, torch.arange(7))
    torch.testing.assert_close(one.cosine, other.cosine)
    assert one.alignment.centred_cosine == pytest.approx(other.alignment.centred_cosine, abs=1e-5)
    assert float(one.cosine.mean()) == pytest.approx(one.alignment.cosine_mean, abs=1e-6)


def test_measure__an_image_that_is_gone_is_left_out_the_last_one_missed(measured_on: BootstrapConfig, tmp_path: Path) -> None:
    held_out = held_out_of(measured_on)
    student = held_out.parts.inheritance.student
    paths = sorted((tmp_path / "evaluation").iterdir())
    paths[2].unlink()
    assert held_out.measure(student).indices.tolist() == [0, 1, 3, 4, 5, 6]
    for path in paths:
        path.unlink(missing_ok=True)
    with pytest.raises(DataError, match="None of the held-out images can be read any more"):
        held_out.measure(student)


def test_followed_rois__only_where_they_can_move(measured_on: BootstrapConfig) -> None:
    followed = []
    for settings in (measured_on, focusing(measured_on)):
        held_out = held_out_of(settings)
        student = held_out.parts.inheritance.student
        followed.append(held_out.measure(student).followed)
        assert rois_move(student) == (followed[-1] is not None)
    assert followed[0] is None
    assert followed[1].rois.shape[:2] == (7, 5)  # images; the start and four stages
    assert followed[1].drift.movement == 0


def test_first_views__skip_what_cannot_be_read(measured_on: BootstrapConfig, tmp_path: Path) -> None:
    sorted((tmp_path / "evaluation").iterdir())[0].write_bytes(b"no photograph")
    parts = gather_parts(measured_on, device=torch.device("cpu"))
    images, names = first_views(parts, 2)
    assert images.shape == (2, 3, *parts.size)
    assert names == ["photograph_001.jpg", "photograph_002.jpg"]
