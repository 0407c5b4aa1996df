"""Photographs with small objects: images of one folder, shrunk and pasted somewhere on backgrounds of another.

Where focusing ought to pay: most of such a picture says nothing, and a coarse grid spends its tokens evenly. Each image of
DATA/SPLIT/CLASS is made smaller, its border faded out, and put at a random place of a random crop of a background;
OUT/SPLIT/CLASS/NAME.jpg is written, so that OUT is a folder to bootstrap from and to evaluate on, and OUT/boxes.json says in
COCO's form where the objects are (x, y, width, height in pixels from the upper left corner).

    python examples/small_objects.py --data caltech101 --backgrounds photographs --out small-objects
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image, ImageDraw, ImageFilter
from rich.progress import track

from sparseformers.errors import ConfigError
from sparseformers.files import replacing, write_text

IMAGES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Settings:
    """What to paste on what."""

    data: Path
    """A folder with SPLIT/CLASS/* for the splits train and test."""
    backgrounds: Path
    """A folder of photographs without the objects."""
    out: Path
    """The folder to make; must not exist."""
    share: tuple[float, float] = (0.3, 0.5)
    """Least and greatest longer side of the object, as a share of the picture's side."""
    side: int = 224
    """Side of the square pictures in pixels."""
    copies: int = 1
    """Pictures made of each image of the train split, each with another background and place; one of each test image."""
    seed: int = 0
    """Of places, sizes and backgrounds."""

    def __post_init__(self) -> None:
        if not 0 < self.share[0] <= self.share[1] <= 1:
            raise ConfigError(
                f"--share {self.share[0]} {self.share[1]} is no range in (0, 1].", "Use --share 0.3 0.5, for example."
            )
        if self.out.exists():
            raise ConfigError(f"The folder {self.out} exists.", "Name another with --out, or remove it.")


def images_in(folder: Path) -> list[Path]:
    """All image files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)


def faded(image: Image.Image) -> Image.Image:
    """An opacity for the image that falls to nothing at its border, so that no sharp edge says where it was pasted."""
    width, height = image.size
    margin = max(2, min(width, height) // 12)
    opacity = Image.new("L", image.size, 0)
    ImageDraw.Draw(opacity).rectangle((margin, margin, width - margin - 1, height - margin - 1), fill=255)
    return opacity.filter(ImageFilter.GaussianBlur(margin / 2))


def random_square(image: Image.Image, side: int, chance: random.Random) -> Image.Image:
    """A random square of half the shorter side or more, possibly mirrored, at the wanted size."""
    edge = round(min(image.size) * chance.uniform(0.5, 1))
    left, top = chance.randint(0, image.width - edge), chance.randint(0, image.height - edge)
    square = image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + edge, top + edge))
    return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if chance.random() < 0.5 else square


def composed(
    item: Image.Image, background: Image.Image, settings: Settings, chance: random.Random
) -> tuple[Image.Image, tuple[int, ...]]:
    """The picture, and the object's box in it."""
    picture = random_square(background, settings.side, chance)
    scale = chance.uniform(*settings.share) * settings.side / max(item.size)
    small = item.resize((max(8, round(item.width * scale)), max(8, round(item.height * scale))), Image.Resampling.BICUBIC)
    left, top = chance.randint(0, settings.side - small.width), chance.randint(0, settings.side - small.height)
    picture.paste(small, (left, top), faded(small))
    return picture, (left, top, small.width, small.height)


def jobs(settings: Settings) -> Iterator[tuple[Path, Path]]:
    """Each image, and the picture to make of it, relative to OUT."""
    for split, copies in (("train", settings.copies), ("test", 1)):
        for path in images_in(settings.data / split):
            for copy in range(copies):
                yield path, path.relative_to(settings.data).with_suffix(f".{copy}.jpg")


def main(settings: Settings) -> None:
    """Makes the folder."""
    backgrounds = [Image.open(path).convert("RGB") for path in images_in(settings.backgrounds)]
    work = list(jobs(settings))
    if not backgrounds or not work:
        empty = settings.data if backgrounds else settings.backgrounds
        raise ConfigError(f"There are no images in {empty}.", "Name folders with jpg, png or webp files.")
    for background in backgrounds:
        background.thumbnail((4 * settings.side, 4 * settings.side))
    images, annotations = [], []
    for number, (source, name) in enumerate(track(work, "pasting")):
        chance = random.Random(f"{settings.seed} {name}")
        with Image.open(source) as opened:
            picture, box = composed(opened.convert("RGB"), chance.choice(backgrounds), settings, chance)
        with replacing(settings.out / name) as temporary:
            picture.save(temporary, format="JPEG", quality=92)
        images.append({"id": number, "file_name": name.as_posix(), "width": settings.side, "height": settings.side})
        shape = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": 1} | shape)
    categories = [{"id": 1, "name": "object"}]
    write_text(settings.out / "boxes.json", json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    print(f"{len(images)} pictures in {settings.out}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
