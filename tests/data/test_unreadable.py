"""Decoding no more than is needed, and files that cannot be read: named, counted, never fatal."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparseformers.data import SkippedImages, UnreadableImageError, read_image
from tests.data.photographs import photograph, pixels
from tests.embedding.small import giant_png


class TestReducedDecoding:
    def test_sides_never_fall_below_and_other_formats_keep_their_size(self, tmp_path: Path) -> None:
        photograph(403, 200).save(tmp_path / "a.jpg")
        for at_least in (1, 30, 50, 51, 99, 100, 101, 199, 200, 201, 1000):
            image = read_image(tmp_path / "a.jpg", at_least=at_least)
            assert min(image.size) >= min(at_least, 200)
            assert image.size == (403, 200) or at_least <= 100
        photograph(800, 400).save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png", at_least=100).size == (800, 400)

    def test_large_jpegs_are_decoded_smaller(self, tmp_path: Path) -> None:
        photograph(800, 400).save(tmp_path / "a.jpg")
        small = read_image(tmp_path / "a.jpg", at_least=100)
        assert small.size == (200, 100)
        expected = pixels(photograph(800, 400).resize((200, 100), Image.Resampling.BOX))
        assert np.abs(pixels(small) - expected).max() <= 8


class TestUnreadable:
    def read(self, path: Path) -> UnreadableImageError:
        with pytest.raises(UnreadableImageError) as caught:
            read_image(path)
        assert caught.value.path == path
        return caught.value

    def test_reasons(self, tmp_path: Path) -> None:
        assert self.read(tmp_path).reason == "a folder that cannot be read"
        assert self.read(tmp_path / "a.jpg").reason == "the file is missing"
        (tmp_path / "a.jpg").touch()
        assert self.read(tmp_path / "a.jpg").reason == "the file is empty"
        postscript = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"  # which Pillow would run
        for text in ("<html>Not found</html>", postscript):
            (tmp_path / "a.jpg").write_text(text)
            assert self.read(tmp_path / "a.jpg").reason == "not an image of a known format"

    def test_cut_or_damaged_file(self, tmp_path: Path) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
        for suffix in ("jpg", "png", "webp", "bmp", "tif", "gif"):
            path = tmp_path / f"a.{suffix}"
            noise.save(path)
            data = path.read_bytes()
            for part in (0.05, 0.5, 0.9):
                path.write_bytes(data[: int(len(data) * part)])
                assert self.read(path).reason
        path = tmp_path / "a.png"
        noise.save(path)
        data = path.read_bytes()
        path.write_bytes(data[:45] + b"\0" * 15 + data[60:])
        assert self.read(path).reason

    def test_too_many_pixels(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(giant_png(50_000))  # which says that it has 2.5 thousand million pixels
        assert self.read(tmp_path / "a.png").reason == "too large: more than 178 million pixels"
        photograph().save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png", most_pixels=48 * 32).size == (48, 32)
        with pytest.raises(UnreadableImageError, match="too large: 48 x 32 pixels, at most 1,535"):
            read_image(tmp_path / "a.png", most_pixels=48 * 32 - 1)

    def test_pillows_warnings_do_not_reach_the_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 32 - 1)
        photograph().save(tmp_path / "a.png")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(tmp_path / "a.png").size == (48, 32)

    def test_error_survives_pickling(self, tmp_path: Path) -> None:
        error = pickle.loads(pickle.dumps(UnreadableImageError(tmp_path / "a.jpg", "the file is empty")))
        assert (error.path, error.reason) == (tmp_path / "a.jpg", "the file is empty")
        assert str(error) == f"{tmp_path / 'a.jpg'}: the file is empty"


class TestSkippedImages:
    def test_file_also_without_any_and_with_a_name_that_is_no_text(self, tmp_path: Path) -> None:
        skipped = SkippedImages()
        for name, reason in (("b.jpg", "broken\nin two lines"), ("a\t.jpg", "the file is empty"), ("b.jpg", "another reason")):
            skipped.add(Path(name), reason)
        assert len(skipped) == 2
        file = tmp_path / "skipped_images.txt"
        file.write_text("an older list")
        skipped.write(file)
        lines = ["# 2 images could not be read", "a\\t.jpg\tthe file is empty", "b.jpg\tbroken\\nin two lines"]
        assert file.read_text().splitlines() == lines
        assert list(tmp_path.iterdir()) == [file]
        skipped = SkippedImages()
        skipped.write(tmp_path / "skipped_images.txt")
        assert (tmp_path / "skipped_images.txt").read_text() == "# 0 images could not be read\n"
        skipped.add(Path("caf\udce9.jpg"), "the file is empty")
        skipped.write(tmp_path / "skipped_images.txt")
        assert b"caf\xe9.jpg\t" in (tmp_path / "skipped_images.txt").read_bytes()
