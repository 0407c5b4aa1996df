from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparseformers.config import PreprocessingConfig
from sparseformers.data import UnreadableImageError, evaluation_view
from sparseformers.viewer.photograph import DISPLAY_SIDE, THUMBNAIL_SIDE, prepare, thumbnail
from tests.tiny import write_images

SQUARE = PreprocessingConfig(size=(64, 64), crop=0.875)
SQUASHED = PreprocessingConfig(size=(48, 48), crop=1.0, resize="squash")


def test_networks_are_given_what_they_are_evaluated_with(tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1)
    prepared = prepare(path, "a name", {SQUARE, SQUASHED}, most_pixels=10**6)
    assert (prepared.name, prepared.width, prepared.height) == ("a name", 96, 72)
    for preprocessing in (SQUARE, SQUASHED):
        expected = evaluation_view(preprocessing)(Image.open(path))
        assert torch.equal(prepared.views[preprocessing].image(), expected)
    assert prepared.views[SQUASHED].seen == (0.0, 0.0, 1.0, 1.0)
    x1, y1, x2, y2 = prepared.views[SQUARE].seen
    assert (x2 - x1) * 96 == pytest.approx((y2 - y1) * 72, rel=0.02)  # a square of the photograph
    assert (y2 - y1) == pytest.approx(0.875, abs=0.02)


def test_from_memory_it_is_the_same(tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1)
    ours, theirs = (prepare(source, "a", {SQUARE}, most_pixels=10**6) for source in (path, io.BytesIO(path.read_bytes())))
    assert torch.equal(ours.views[SQUARE].pixels, theirs.views[SQUARE].pixels)
    assert ours.display == theirs.display


def test_what_is_shown_of_a_large_photograph_is_small(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((500, 4000, 3), np.uint8)).save(tmp_path / "wide.png")
    prepared = prepare(tmp_path / "wide.png", "wide", {SQUARE}, most_pixels=10**7)
    assert (prepared.width, prepared.height) == (4000, 500)
    assert Image.open(io.BytesIO(prepared.display)).size == (DISPLAY_SIDE, 200)
    small = thumbnail(tmp_path / "wide.png", "wide", most_pixels=10**7)
    assert Image.open(io.BytesIO(small)).size == (THUMBNAIL_SIDE, 20)


def test_the_files_metadata_is_not_handed_on(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where it was taken"
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg", exif=exif, comment=b"by whom")
    shown = prepare(tmp_path / "a.jpg", "a", {SQUARE}, most_pixels=10**6).display
    assert b"where it was taken" not in shown
    assert b"by whom" not in shown


def test_too_many_pixels(tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1)
    with pytest.raises(UnreadableImageError, match="too large: 96 x 72 pixels, at most 6,911"):
        prepare(path, "a", {SQUARE}, most_pixels=96 * 72 - 1)
