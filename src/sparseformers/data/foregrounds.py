"""The foreground of photographs, by masks or by boxes in COCO's form."""

from __future__ import annotations

import dataclasses
import json
import math
import posixpath
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data.images import UnreadableImageError, decode, upright_size
from sparseformers.data.places import checked, find
from sparseformers.data.transforms import evaluation_view
from sparseformers.errors import DataError, shorten

JPEG_THRESHOLD = 128  # a JPEG blurs the border of a mask, so there only values above half are foreground
Box = tuple[float, float, float, float]  # x and y of the left upper corner, width and height, in pixels of the original image
FORM = 'It has to be {"images": [{"id", "file_name"}, ...], "annotations": [{"image_id", "bbox": [x, y, width, height]}, ...]}.'


class Foregrounds(ABC):
    """The foreground of some images; ``known`` says for each whether there is a mask or box."""

    def __init__(self, paths: Sequence[Path], known: Sequence[bool]) -> None:
        self.paths, self.known = tuple(paths), tuple(known)

    @abstractmethod
    def mask(self, index: int) -> Image.Image:
        """The mask of a known image, as large as it is upright, grey: 255 for foreground, else 0; raises UnreadableImageError."""

    def seen(self, index: int, preprocessing: PreprocessingConfig) -> Tensor | None:
        """The share of each pixel of the network's view that is foreground: H x W in [0, 1]; None for an unknown image."""
        if not self.known[index]:
            return None
        # The lobes of a bicubic filter would be cut off at 0 and 1, and small objects would come out larger than they are.
        view = evaluation_view(dataclasses.replace(preprocessing, interpolation="bilinear"))
        return view.pixels(self.mask(index))[0].float() / 255


class MaskFolder(Foregrounds):
    """A folder of masks at the same relative paths as the images in ``data``, with any suffix; all but zero is foreground.

    Raises DataError for no folder, no mask, two masks of one image, or a mask of another size than its image's.
    """

    def __init__(self, paths: Sequence[Path], data: Path, folder: Path) -> None:
        checked(folder)
        if not folder.is_dir():
            raise DataError(f"'{folder}' is a file, and no folder of masks.", "Give a folder with a mask for each image.")
        found: dict[str, Path] = {}
        for mask in find([folder]).images:
            stem = mask.relative_to(folder).with_suffix("").as_posix()
            if stem in found:
                problem = f"There are two masks of the same image: '{found[stem]}' and '{mask}'."
                raise DataError(problem, "Leave one of them in the folder.")
            found[stem] = mask
        names = [relative_name(path, data) for path in paths]
        self.masks = [found.get(name.with_suffix("").as_posix()) for name in names]
        super().__init__(paths, [mask is not None for mask in self.masks])
        if not any(self.known):
            problem = f"None of the {len(paths)} images of '{data}' has a mask in '{folder}'."
            raise DataError(problem, f"A mask has the name of its image, such as {names[0].with_suffix('.png').as_posix()}.")
        # Files that cannot be read have no size; they are told of when they are needed.
        pairs = [(image, mask) for image, mask in zip(self.paths, self.masks, strict=True) if mask is not None]
        sized = [(image, mask, upright_size(image), upright_size(mask)) for image, mask in pairs]
        wrong = [each for each in sized if each[2] and each[3] and each[2] != each[3]]
        if wrong:
            image, mask, of_image, of_mask = wrong[0]
            others = f", and {len(wrong) - 1} more are of another size" if len(wrong) > 1 else ""
            problem = f"The mask '{mask}' has {_by(of_mask)} pixels and its image '{image}' {_by(of_image)}{others}."
            raise DataError(problem, "Masks have to be as large as their images are; resize them without interpolation.")

    def mask(self, index: int) -> Image.Image:
        path = self.masks[index]
        assert path is not None  # only of known images
        return decode(path, path, convert=_not_zero)


class BoxFile(Foregrounds):
    """Boxes around objects (the foreground) in COCO's form, by names relative to ``data``; DataError if they do not fit."""

    def __init__(self, paths: Sequence[Path], data: Path, file: Path) -> None:
        named = read_boxes(file)
        names = [relative_name(path, data).as_posix() for path in paths]
        # Names as they stand first; of files that lay elsewhere the last part, where no two images share it.
        times, times_named = (Counter(Path(name).name for name in each) for each in (names, named))
        by_last = {last: entry for name, entry in named.items() if times[last := Path(name).name] == times_named[last] == 1}
        self.boxes: list[tuple[Box, ...]] = []
        wrong: list[str] = []
        for path, name in zip(paths, names, strict=True):
            entry = named.get(name) or by_last.get(Path(name).name)
            size = None if entry is None or entry.size is None else upright_size(path)
            if entry is not None and size is not None and entry.size != size:
                wrong.append(f"'{path}' has {_by(size)} pixels and not {_by(entry.size)}")
            self.boxes.append(() if entry is None else entry.boxes)
        super().__init__(paths, [bool(boxes) for boxes in self.boxes])
        if wrong:
            problem = f"The boxes in '{file}' are of images of another size: {shorten(wrong, limit=3)}."
            raise DataError(problem, "Boxes have to be in pixels of the files that are evaluated.")
        if not any(self.known):
            problem = f"The boxes file '{file}' has no boxes of any of the {len(paths)} images of '{data}'."
            raise DataError(problem, f"Their names are relative to that folder, such as '{names[0]}'.")

    def mask(self, index: int) -> Image.Image:
        size = upright_size(self.paths[index])
        if size is None:
            raise UnreadableImageError(self.paths[index], "its size is not known")
        mask = Image.new("L", size, 0)
        draw = ImageDraw.Draw(mask)
        for x, y, width, height in self.boxes[index]:
            left, top, right, bottom = round(x), round(y), round(x + width) - 1, round(y + height) - 1
            if right >= left and bottom >= top:
                draw.rectangle((left, top, right, bottom), fill=255)
        return mask


def relative_name(path: Path, data: Path) -> Path:
    """The name of an image below the folder that it was found in; of a single image its file name."""
    return Path(path.name) if path == data else path.relative_to(data)


def _not_zero(image: Image.Image) -> Image.Image:
    """Any kind of image as a mask: 255 for a colour (or index of a palette) that is not zero and not transparent."""
    values = np.asarray(image)
    if values.ndim == 2:
        solid = values > JPEG_THRESHOLD if image.format == "JPEG" else values != 0
    else:
        colours = values[..., :-1] if image.mode in ("LA", "La", "RGBA", "RGBa") else values
        solid = (colours > JPEG_THRESHOLD if image.format == "JPEG" else colours != 0).any(axis=-1)
        if colours is not values:
            solid &= values[..., -1] != 0
    return Image.fromarray(solid.astype(np.uint8) * 255)


def _by(size: tuple[int, int] | None) -> str:
    return "?" if size is None else f"{size[0]} x {size[1]}"


class BoxedImage(NamedTuple):
    """The boxes of one image."""

    size: tuple[int, int] | None  # width and height in pixels, where the file tells
    boxes: tuple[Box, ...]


def read_boxes(path: Path) -> dict[str, BoxedImage]:
    """Reads the boxes of each file name, with ``/`` and without ``./``, from a file of COCO's form.

    It is JSON with ``images`` (``id``, ``file_name``, perhaps ``width`` and ``height``) and ``annotations`` (``image_id``,
    ``bbox``: x, y, width, height in pixels). Raises DataError for a file that is missing, no JSON, or of another form.
    """
    if not path.is_file():
        raise DataError(f"There is no boxes file '{path}'.", "Check the path after --boxes.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"The boxes file '{path}' is not JSON ({type(error).__name__}).", FORM) from None
    images: dict[Any, tuple[str, tuple[int, int] | None, list[Box]]] = {}
    for place, image in enumerate(_entries(content, "images", path)):
        name, identity = image.get("file_name"), image.get("id")
        if not isinstance(name, str) or not name or not isinstance(identity, (int, str)):
            raise DataError(f"Entry {place} of the images in '{path}' has no file_name or no id.", FORM)
        if identity in images:
            raise DataError(f"Two images in '{path}' have the id {identity}.", "Give each image an id of its own.")
        width, height = image.get("width"), image.get("height")
        size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
        images[identity] = (posixpath.normpath(name.replace("\\", "/")), size, [])
    for place, annotation in enumerate(_entries(content, "annotations", path)):
        identity = annotation.get("image_id")
        if not isinstance(identity, (int, str)) or identity not in images:
            raise DataError(f"Annotation {place} in '{path}' is of an image {identity!r} that is not listed.", FORM)
        images[identity][2].append(_box(annotation.get("bbox"), place, path))
    return {name: BoxedImage(size, tuple(boxes)) for name, size, boxes in images.values()}


def _entries(content: Any, key: str, path: Path) -> list[Mapping[str, Any]]:
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"The boxes file '{path}' has no list of {key}.", FORM)
    return entries


def _box(value: Any, place: int, path: Path) -> Box:
    sides = value if isinstance(value, list) and len(value) == 4 else [None]
    # JSON's true is an int to Python.
    numbers = all(isinstance(side, (int, float)) and not isinstance(side, bool) and math.isfinite(side) for side in sides)
    if not numbers or min(sides[2:]) < 0:
        problem = f"Annotation {place} in '{path}' has no box of four numbers, x, y, width and height in pixels."
        raise DataError(problem, "Widths and heights are at least 0; leave out annotations without a bbox.")
    x, y, width, height = map(float, sides)
    return x, y, width, height
