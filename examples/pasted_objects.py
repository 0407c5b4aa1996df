"""Photographs of which it is known where the object is: cut out of one photograph by an ellipse, pasted somewhere on another.

To ask a student whether it looks at objects more than at the rest, without anybody's annotations. An object is cut out with an
opacity that is 1 inside of an ellipse and falls to 0 at its border, made smaller, and put at a random place of a random square of
a background. Where the opacity is at least one half is foreground. OUT/images/NAME.jpg, OUT/masks/NAME.png (255 is foreground),
OUT/classes/NAME.png (the number of the object's class, from 1; 0 is background) and OUT/boxes.json (COCO's form; names relative
to OUT/images) are written, the same ones for the same seed. An object's class is the folder that it is in, or itself where all
are in one.

Without --objects and --backgrounds they are made of photographs that scikit-image, scikit-learn and matplotlib bring along. With
--objects FOLDER each of its images is an object: an ellipse that fills it, which suits photographs of one thing in the middle.
(small_objects.py makes whole data sets to train on, with class folders and boxes, of rectangles without masks.)

    python examples/pasted_objects.py --out pasted --count 200
    sparseformers evaluate RUN --data pasted/images --focus --masks pasted/masks
    sparseformers evaluate RUN --data pasted/images --dense --masks pasted/classes
"""

from __future__ import annotations

import functools
import json
import random
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image, ImageDraw, ImageFilter
from rich.progress import track

from sparseformers.data import find_images, read_image
from sparseformers.demo.run import LONGEST_SIDE, installed
from sparseformers.errors import ConfigError
from sparseformers.files import replacing, write_text

Ellipse = tuple[float, float, float, float]
"""Its box, (x1, y1, x2, y2) in [0, 1] of the photograph."""
MOST_CLASSES = 254
"""Of a mask with a byte for each pixel: 0 is background, 255 nothing said."""
FILLING: Ellipse = (0.04, 0.04, 0.96, 0.96)
"""In a photograph of one thing."""
OBJECTS: dict[str, dict[str, Ellipse]] = {
    "skimage/data": {
        "astronaut.png": (0.29, 0.01, 0.59, 0.44),  # a head
        "chelsea.png": (0.1, 0.0, 0.83, 1.0),  # a cat's face
        "coffee.png": (0.09, 0.0, 0.9, 1.0),  # a cup on its saucer
        "retina.jpg": (0.02, 0.02, 0.98, 0.98),  # an eye from inside
    },
    "sklearn/datasets/images": {"flower.jpg": (0.25, 0.18, 0.71, 0.86)},
    "matplotlib/mpl-data/sample_data": {"grace_hopper.jpg": (0.27, 0.02, 0.77, 0.66)},
}
"""Objects in photographs of installed packages, by the folder inside the package."""
BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "skimage/data": ("brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png")
}
"""Photographs without an object, of installed packages."""


@dataclass(frozen=True)
class Settings:
    """What to paste on what."""

    out: Path
    """The folder to make; must not exist."""
    objects: Path | None = None
    """A folder of photographs of one thing each; by default those of installed packages."""
    backgrounds: Path | None = None
    """A folder of photographs to paste on; by default textures of installed packages."""
    count: int = 100
    """Pictures to make."""
    share: tuple[float, float] = (0.25, 0.5)
    """Least and greatest longer side of the object, as a share of the picture's side."""
    side: int = 224
    """Side of the square pictures in pixels."""
    seed: int = 0
    """Of objects, backgrounds, sizes and places."""

    def __post_init__(self) -> None:
        if not 0 < self.share[0] <= self.share[1] <= 1:
            raise ConfigError(
                f"--share {self.share[0]} {self.share[1]} is no range in (0, 1].", "Use --share 0.25 0.5, for example."
            )
        if self.count < 1 or self.side < 8:
            raise ConfigError(
                f"There cannot be {self.count} pictures of {self.side} pixels a side.", "Use --count 100 --side 224."
            )
        if self.out.exists():
            raise ConfigError(f"The folder {self.out} exists.", "Name another with --out, or remove it.")


def known_objects(folder: Path | None) -> list[tuple[Path, Ellipse]]:
    """Photographs, and where the object is in each."""
    if folder is not None:
        return [(path, FILLING) for path in find_images([folder])]
    names = {place: tuple(ellipses) for place, ellipses in OBJECTS.items()}
    ellipses = [ellipse for by_name in OBJECTS.values() for ellipse in by_name.values()]
    return list(zip(installed(names), ellipses, strict=True))


def classes_of(paths: list[Path]) -> dict[Path, int]:
    """The number of each photograph's class, from 1."""
    folders = {path.parent for path in paths}
    keys = {path: str(path.parent if len(folders) > 1 else path) for path in paths}
    numbers = {key: number for number, key in enumerate(sorted(set(keys.values())), start=1)}
    if len(numbers) > MOST_CLASSES:
        raise ConfigError(f"There are {len(numbers)} classes of objects, and a mask has at most {MOST_CLASSES}.", "Use fewer.")
    return {path: numbers[key] for path, key in keys.items()}


def cut_out(photograph: Image.Image, ellipse: Ellipse, longest: int) -> tuple[Image.Image, Image.Image]:
    """The object alone and its opacity (grey, 255 is solid), with a longer side of that many pixels."""
    x1, y1, x2, y2 = (share * side for share, side in zip(ellipse, 2 * photograph.size, strict=True))
    scale = longest / max(x2 - x1, y2 - y1)
    size = (max(8, round((x2 - x1) * scale)), max(8, round((y2 - y1) * scale)))
    shown = photograph.resize(size, Image.Resampling.BICUBIC, box=(x1, y1, x2, y2), reducing_gap=3.0)
    fade = max(1.0, min(size) / 24)
    opacity = Image.new("L", size, 0)
    ImageDraw.Draw(opacity).ellipse((fade, fade, size[0] - 1 - fade, size[1] - 1 - fade), fill=255)
    return shown, opacity.filter(ImageFilter.GaussianBlur(fade / 2))


def random_square(photograph: Image.Image, side: int, chance: random.Random) -> Image.Image:
    """A random square of half the shorter side or more, at the wanted size."""
    edge = round(min(photograph.size) * chance.uniform(0.5, 1))
    left, top = chance.randint(0, photograph.width - edge), chance.randint(0, photograph.height - edge)
    return photograph.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + edge, top + edge))


def pasted(
    item: tuple[Image.Image, Ellipse], background: Image.Image, settings: Settings, chance: random.Random
) -> tuple[Image.Image, Image.Image]:
    """The picture, and its mask: 255 where the object is, else 0."""
    picture = random_square(background, settings.side, chance)
    shown, opacity = cut_out(*item, longest=round(chance.uniform(*settings.share) * settings.side))
    place = chance.randint(0, settings.side - shown.width), chance.randint(0, settings.side - shown.height)
    picture.paste(shown, place, opacity)
    mask = Image.new("L", picture.size, 0)
    mask.paste(opacity.point([0] * 128 + [255] * 128), place)
    return picture, mask


@functools.lru_cache(maxsize=64)
def loaded(path: Path) -> Image.Image:
    """A photograph, not larger than need be."""
    photograph = read_image(path)
    photograph.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return photograph


def main(settings: Settings) -> None:
    """Makes the folder."""
    items = known_objects(settings.objects)
    classes = classes_of([path for path, _ in items])
    backgrounds = installed(BACKGROUNDS) if settings.backgrounds is None else find_images([settings.backgrounds])
    images, annotations = [], []
    for number in track(range(settings.count), "pasting"):
        chance = random.Random(f"{settings.seed} {number}")
        path, ellipse = chance.choice(items)
        picture, mask = pasted((loaded(path), ellipse), loaded(chance.choice(backgrounds)), settings, chance)
        name = f"{number:05}-{path.stem}"
        with replacing(settings.out / "images" / f"{name}.jpg") as temporary:
            picture.save(temporary, format="JPEG", quality=92)
        with replacing(settings.out / "masks" / f"{name}.png") as temporary:
            mask.save(temporary, format="PNG")
        with replacing(settings.out / "classes" / f"{name}.png") as temporary:
            mask.point([0] * 128 + [classes[path]] * 128).save(temporary, format="PNG")
        left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
        images.append({"id": number, "file_name": f"{name}.jpg", "width": settings.side, "height": settings.side})
        shape = {"bbox": [left, top, right - left, bottom - top], "area": mask.histogram()[255], "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": classes[path]} | shape)
    several = len(set(classes.values())) < len(classes)
    names = {number: path.parent.name if several else path.stem for path, number in classes.items()}
    categories = [{"id": number, "name": name} for number, name in sorted(names.items())]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_text(settings.out / "boxes.json", json.dumps(content))
    masks = f"{settings.out / 'masks'} and {settings.out / 'classes'}"
    print(f"{settings.count} pictures in {settings.out / 'images'}, their masks in {masks}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
