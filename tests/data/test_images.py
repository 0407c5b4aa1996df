"""Finding image files, and decoding everything that people keep in their folders."""

import warnings
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparseformers.data import find_images, read_image
from sparseformers.data.places import readable_suffixes
from sparseformers.errors import DataError
from tests.data.photographs import photograph, pixels

RED, GREEN, BLUE, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)


class TestFindImages:
    def test_finds_every_kind_in_all_depths_and_sorts(self, tmp_path: Path) -> None:
        names = ["b.JPG", "a.png", "deep/er/c.WebP", "deep/d.tiff", "e.gif", "f.bmp", "g.jpeg", "h.tif"]
        for name in [*names, "notes.txt", "archive.jpg.zip", "jpg"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        assert find_images([tmp_path]) == sorted(tmp_path / name for name in names)

    def test_leaves_out_what_is_hidden_and_other_files_unless_they_are_asked_for(self, tmp_path: Path) -> None:
        for folder in (".cache", "empty"):
            (tmp_path / folder).mkdir()
        for name in ("seen.png", "._seen.png", ".cache/thumbnail.png"):
            (tmp_path / name).touch()
        assert find_images([tmp_path]) == [tmp_path / "seen.png"]
        assert find_images([tmp_path / ".cache"]) == [tmp_path / ".cache" / "thumbnail.png"]
        assert find_images([tmp_path / "empty", tmp_path / "seen.png"]) == [tmp_path / "seen.png"]

    def test_counts_each_file_once_over_overlapping_folders_and_follows_links(self, tmp_path: Path) -> None:
        part, data = tmp_path / "part", tmp_path / "data"
        part.mkdir()
        for name in ("a.png", "b.png"):
            (part / name).touch()
        (part / "circle").symlink_to(tmp_path)
        (tmp_path / "same.png").symlink_to(part / "a.png")
        assert find_images([part, tmp_path, part / "b.png"]) == [part / "a.png", part / "b.png"]
        data.mkdir()
        (data / "link").symlink_to(part)
        assert find_images([data])[:1] == [data / "link" / "a.png"]

    def test_what_holds_no_images_is_told_with_what_to_do(self, tmp_path: Path) -> None:
        for name in ("photographs", "empty"):
            (tmp_path / name).mkdir()
        (tmp_path / "notes.txt").touch()
        endings = f"Images are files that end in {', '.join(readable_suffixes())}."
        near = "Did you mean 'photographs'? Give a folder that holds images."
        for names, problem, remedy in (
            (["photograph"], f"The folder '{tmp_path}/photograph' does not exist.", near),
            (["no/where"], f"The folder '{tmp_path}/no/where' does not exist.", "Give a folder that holds images."),
            (["notes.txt"], f"'{tmp_path}/notes.txt' is neither a folder nor an image.", None),
            ([""], f"The folder '{tmp_path}' holds no images (1 file passed over: .txt 1).", endings),
            (["empty", "photographs"], f"The folders '{tmp_path}/empty', '{tmp_path}/photographs' hold no images.", endings),
        ):
            with pytest.raises(DataError) as caught:
                find_images([tmp_path / name for name in names])
            assert caught.value.problem == problem
            assert remedy is None or caught.value.remedy == remedy


class TestFormats:
    def test_every_format(self, tmp_path: Path) -> None:
        for suffix, tolerance in {"jpg": 16, "png": 0, "webp": 24, "bmp": 0, "tif": 0, "tiff": 0, "gif": 40}.items():
            photograph().save(tmp_path / f"a.{suffix}")
            image = read_image(tmp_path / f"a.{suffix}")
            assert (image.mode, image.size) == ("RGB", (48, 32))
            assert np.abs(pixels(image) - pixels(photograph())).max() <= tolerance, suffix

    def test_the_content_counts_and_not_the_name_and_of_several_frames_or_pages_the_first(self, tmp_path: Path) -> None:
        photograph().save(tmp_path / "a.png", format="BMP")
        assert np.array_equal(pixels(read_image(tmp_path / "a.png")), pixels(photograph()))
        for name in ("a.gif", "a.tif"):
            frames = [Image.new("RGB", (10, 10), colour) for colour in (RED, GREEN, BLUE)]
            frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
            assert read_image(tmp_path / name).getpixel((5, 5)) == RED

    def test_tiny_images(self, tmp_path: Path) -> None:
        for size in ((1, 1), (1, 40), (7, 3)):
            Image.new("RGB", size, BLUE).save(tmp_path / "a.png")
            assert read_image(tmp_path / "a.png").size == size


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: np.transpose(upright, (1, 0, 2)),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(np.transpose(upright, (1, 0, 2)), 2),
    8: lambda upright: np.rot90(upright, -1),
}
"""How a camera stores an upright image for each EXIF orientation (the inverse of what displays do)."""


class TestOrientation:
    def test_is_applied(self, tmp_path: Path) -> None:
        upright = pixels(photograph())
        for orientation, name in product(TURNS, ("a.png", "a.jpg", "a.tif")):
            exif = Image.Exif()
            exif[0x0112] = orientation
            stored = np.ascontiguousarray(TURNS[orientation](upright)).astype(np.uint8)
            Image.fromarray(stored).save(tmp_path / name, exif=exif)
            image = read_image(tmp_path / name)
            assert image.size == (48, 32)
            assert np.abs(pixels(image) - upright).max() <= (16 if name == "a.jpg" else 0), (orientation, name)

    def test_damaged_exif_data_is_ignored(self, tmp_path: Path) -> None:
        photograph().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(tmp_path / "a.jpg").size == (48, 32)


def with_pixels(mode: str, *values: object, palette: Sequence[int] = ()) -> Image.Image:
    """An image of one row."""
    image = Image.new(mode, (len(values), 1))
    if palette:
        image.putpalette(palette)
    image.putdata(values)
    return image


class TestModes:
    def test_become_rgb_on_white(self, tmp_path: Path) -> None:
        Image.new("RGB", (16, 16), RED).convert("CMYK").save(tmp_path / "a.jpg")
        assert np.abs(pixels(read_image(tmp_path / "a.jpg"))[8, 8] - RED).max() <= 4
        colours = [*BLUE, *GREEN]
        for name, image, expected, options in (
            ("grey.png", with_pixels("L", 77), [(77, 77, 77)], {}),
            ("one_bit.png", with_pixels("1", 0, 255), [BLACK, WHITE], {}),
            ("palette.png", with_pixels("P", 1, 0, palette=colours), [GREEN, BLUE], {}),
            ("alpha.png", with_pixels("RGBA", (*RED, 0), (*RED, 128), (*RED, 255)), [WHITE, (255, 127, 127), RED], {}),
            ("grey_alpha.png", with_pixels("LA", (0, 0), (50, 255)), [WHITE, (50, 50, 50)], {}),
            ("transparent.png", with_pixels("P", 0, 1, palette=colours), [WHITE, GREEN], {"transparency": 0}),
            ("transparent.gif", with_pixels("P", 0, 1, palette=colours), [WHITE, GREEN], {"transparency": 0}),
            ("transparent_rgb.png", with_pixels("RGB", RED, GREEN), [WHITE, GREEN], {"transparency": RED}),
        ):
            image.save(tmp_path / name, **options)
            assert pixels(read_image(tmp_path / name))[0].tolist() == list(map(list, expected)), name

    def test_other_depths(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 257, 257 * 100, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
        assert pixels(read_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 1, 100, 255]
        for kind, values, expected in (
            (np.uint16, [0, 257, 257 * 100, 65535], [0, 1, 100, 255]),
            (np.uint16, [200, 200, 200], [1, 1, 1]),
            (np.int32, [0, 257 * 9, 65535], [0, 9, 255]),
            (np.int32, [0, 500_000, 2_000_000], [0, 64, 255]),
            (np.int32, [-100, 20, 100], [0, 153, 255]),
            (np.float32, [0.0, 0.2, 1.0], [0, 51, 255]),
            (np.float32, [0.0, 51.0, 200.0], [0, 51, 200]),
            (np.float32, [0.0, 257.0, 65535.0], [0, 1, 255]),
            (np.float32, [-1.0, 0.2, 1.0], [0, 153, 255]),
            (np.float32, [float("nan"), 0.2, 1.0], [0, 51, 255]),
            (np.float32, [-3.0, -3.0, -3.0], [0, 0, 0]),
        ):
            Image.fromarray(np.array([values], dtype=kind)).save(tmp_path / "a.tif")
            assert pixels(read_image(tmp_path / "a.tif"))[0, :, 0].tolist() == expected, values
