import io
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparseformers.config import PreprocessingConfig
from sparseformers.data import evaluation_view
from sparseformers.errors import DataError
from sparseformers.viewer.images import DISPLAY_SIDE, THUMBNAIL_SIDE, Gallery, Recent, prepare, thumbnail
from tests.tiny import write_images

SQUARE = PreprocessingConfig(size=(64, 64), crop=0.875)
SQUASHED = PreprocessingConfig(size=(48, 48), crop=1.0, resize="squash")


def test_networks_are_given_what_they_are_evaluated_with(tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1)
    for source in (path, io.BytesIO(path.read_bytes())):
        prepared = prepare(source, "a name", {SQUARE, SQUASHED}, most_pixels=10**6)
        assert (prepared.name, prepared.width, prepared.height) == ("a name", 96, 72)
        for preprocessing in (SQUARE, SQUASHED):
            expected = evaluation_view(preprocessing)(Image.open(path))
            assert torch.equal(prepared.inputs[preprocessing].image(), expected)
    assert prepared.inputs[SQUASHED].seen == (0.0, 0.0, 1.0, 1.0)
    x1, y1, x2, y2 = prepared.inputs[SQUARE].seen
    assert (x2 - x1) * 96 == pytest.approx((y2 - y1) * 72, rel=0.02)  # a square of the photograph
    assert (y2 - y1) == pytest.approx(0.875, abs=0.02)


def test_what_is_shown_of_a_large_photograph_is_small_and_without_its_metadata(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((500, 4000, 3), np.uint8)).save(tmp_path / "wide.png")
    prepared = prepare(tmp_path / "wide.png", "wide", {SQUARE}, most_pixels=10**7)
    assert (prepared.width, prepared.height) == (4000, 500)
    assert Image.open(io.BytesIO(prepared.display)).size == (DISPLAY_SIDE, 200)
    small = thumbnail(tmp_path / "wide.png", "wide", most_pixels=10**7)
    assert Image.open(io.BytesIO(small)).size == (THUMBNAIL_SIDE, 20)
    exif = Image.Exif()
    exif[0x010E] = "where it was taken"
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg", exif=exif, comment=b"by whom")
    shown = prepare(tmp_path / "a.jpg", "a", {SQUARE}, most_pixels=10**6).display
    assert b"where it was taken" not in shown
    assert b"by whom" not in shown


def test_images_are_named_by_number_and_what_was_named_first_comes_first(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "photos", 3)
    gallery = Gallery([tmp_path / "photos"])
    assert len(gallery) == 3
    assert [gallery.name(number) for number in range(3)] == [path.name for path in paths]
    assert [gallery.file(number) for number in range(3)] == [path.resolve() for path in paths]
    assert gallery.number_of(paths[1].resolve()) == 1
    assert gallery.number_of(tmp_path / "elsewhere.jpg") is None
    with pytest.raises(IndexError):
        gallery.file(3)
    paths = write_images(tmp_path / "photos", 3)
    others = write_images(tmp_path / "a folder", 2)
    gallery = Gallery([paths[2], tmp_path / "photos", tmp_path / "a folder"])
    assert [gallery.file(number) for number in range(5)] == [path.resolve() for path in (paths[2], *paths[:2], *others)]


def test_links_that_lead_out_of_the_folder_are_left_out_and_one_that_was_named_itself_is_followed(tmp_path: Path) -> None:
    (secret,) = write_images(tmp_path / "secret", 1)
    inside = write_images(tmp_path / "photos", 2)
    (tmp_path / "photos" / "link.jpg").symlink_to(secret)
    (tmp_path / "photos" / "folder").symlink_to(tmp_path / "secret")
    (tmp_path / "photos" / "again.jpg").symlink_to(inside[0])
    gallery = Gallery([tmp_path / "photos"])
    assert {gallery.file(number) for number in range(len(gallery))} == {path.resolve() for path in inside}
    assert gallery.led_out == 1
    for path in inside:
        path.unlink()
    with pytest.raises(DataError, match="All 1 images are links that lead out of their folder"):
        Gallery([tmp_path / "photos"])
    (target,) = write_images(tmp_path / "elsewhere", 1)
    (tmp_path / "link.jpg").symlink_to(target)
    assert Gallery([tmp_path / "link.jpg"]).file(0) == target.resolve()


def test_entries_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no images \(1 unreadable entry: a link that leads nowhere"):
        Gallery([tmp_path])
    Image.new("RGB", (40, 40)).save(tmp_path / "there.png")
    gallery = Gallery([tmp_path])
    assert len(gallery) == 1
    ((path, reason),) = gallery.faults
    assert (Path(path).name, reason) == ("gone.jpg", "a link that leads nowhere")


def test_forgets_what_was_not_used_for_longest() -> None:
    recent: Recent[str, int] = Recent(2, threading.Lock())
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert [recent.get(key) for key in "abc"] == [1, None, 3]
    recent.put("a", 4)
    assert [recent.once(key, lambda: 5) for key in "abc"] == [4, 5, 5]  # "c" had to make room
