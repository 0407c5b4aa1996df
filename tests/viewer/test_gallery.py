from __future__ import annotations

from pathlib import Path

import pytest

from sparseformers.data import UnreadableImageError
from sparseformers.errors import DataError
from sparseformers.viewer.gallery import Gallery
from tests.tiny import write_images


def test_images_are_named_by_number(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "photos", 3)
    gallery = Gallery([tmp_path / "photos"])
    assert len(gallery) == 3
    assert [gallery.name(number) for number in range(3)] == [path.name for path in paths]
    assert [gallery.file(number) for number in range(3)] == [path.resolve() for path in paths]
    assert gallery.number_of(paths[1].resolve()) == 1
    assert gallery.number_of(tmp_path / "elsewhere.jpg") is None
    for number in (-1, 3):
        with pytest.raises(IndexError):
            gallery.file(number)


def test_what_was_named_first_comes_first(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "photos", 3)
    others = write_images(tmp_path / "a folder", 2)
    gallery = Gallery([paths[2], tmp_path / "photos", tmp_path / "a folder"])
    assert [gallery.file(number) for number in range(5)] == [path.resolve() for path in (paths[2], *paths[:2], *others)]


def test_links_that_lead_out_of_the_folder_are_left_out(tmp_path: Path) -> None:
    (secret,) = write_images(tmp_path / "secret", 1)
    inside = write_images(tmp_path / "photos", 2)
    (tmp_path / "photos" / "link.jpg").symlink_to(secret)
    (tmp_path / "photos" / "folder").symlink_to(tmp_path / "secret")
    (tmp_path / "photos" / "again.jpg").symlink_to(inside[0])
    gallery = Gallery([tmp_path / "photos"])
    assert {gallery.file(number) for number in range(len(gallery))} == {path.resolve() for path in inside}
    assert gallery.led_out == 1


def test_a_file_that_becomes_a_link_later_is_not_followed(tmp_path: Path) -> None:
    (secret,) = write_images(tmp_path / "secret", 1)
    path, _ = write_images(tmp_path / "photos", 2)
    gallery = Gallery([tmp_path / "photos"])
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(UnreadableImageError, match="it is a link that leads out of its folder"):
        gallery.file(0)


def test_a_link_that_was_named_itself_is_followed(tmp_path: Path) -> None:
    (target,) = write_images(tmp_path / "elsewhere", 1)
    (tmp_path / "link.jpg").symlink_to(target)
    assert Gallery([tmp_path / "link.jpg"]).file(0) == target.resolve()


def test_a_folder_of_nothing_but_links_out_of_it(tmp_path: Path) -> None:
    (secret,) = write_images(tmp_path / "secret", 1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link.jpg").symlink_to(secret)
    with pytest.raises(DataError, match="All 1 images are links that lead out of their folder"):
        Gallery([tmp_path / "photos"])


def test_no_places_are_an_empty_gallery() -> None:
    assert len(Gallery([])) == 0
