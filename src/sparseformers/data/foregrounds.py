"""Which pixels of photographs are their objects, where somebody has said so: by masks, or by boxes in COCO's form."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data.box_file import Box, read_boxes
from sparseformers.data.images import UnreadableImageError, checked_folder, decode, images_under, upright_size
from sparseformers.data.transforms import evaluation_view
from sparseformers.errors import DataError, shorten

JPEG_THRESHOLD = 128
"""A JPEG blurs the border of a mask: there, what is above half is foreground, and not all that is not zero."""


class Foregrounds(ABC):
    """Of some images, which pixels are foreground.

    Args:
        paths: the images.
        known: for each of them, whether anything is said of it.
    """

    def __init__(self, paths: Sequence[Path], known: Sequence[bool]) -> None:
        self.paths = tuple(paths)
        self.known = tuple(known)

    @abstractmethod
    def mask(self, index: int) -> Image.Image:
        """The mask of a known image: as large as the upright image, grey, 255 for foreground and 0 for the rest.

        Raises:
            UnreadableImageError: if it cannot be read.
        """

    def seen(self, index: int, preprocessing: PreprocessingConfig) -> Tensor | None:
        """The mask in the network's view, which is resized and cropped as the image is.

        Returns:
            H x W in [0, 1]: the share of each pixel of the view that is foreground; None where nothing is said of the image.

        Raises:
            UnreadableImageError: if the mask cannot be read.
        """
        if not self.known[index]:
            return None
        # The lobes of a bicubic filter would be cut off at 0 and 1, and small objects would come out larger than they are.
        view = evaluation_view(dataclasses.replace(preprocessing, interpolation="bilinear"))
        return view.pixels(self.mask(index))[0].float() / 255


class MaskFolder(Foregrounds):
    """A folder of masks, each named as its image is: what is not zero is foreground.

    Args:
        paths: the images, below ``data``.
        data: the folder of images, or a single one.
        folder: with a mask at the same relative path for each image, whatever its suffix.

    Raises:
        DataError: for a folder that is not there or has no mask of any of the images, two masks of one image, or a mask of
            another size than its image's.
    """

    def __init__(self, paths: Sequence[Path], data: Path, folder: Path) -> None:
        checked_folder(folder)
        found: dict[str, Path] = {}
        for mask in images_under([folder]):
            stem = mask.relative_to(folder).with_suffix("").as_posix()
            if stem in found:
                raise DataError(
                    f"There are two masks of the same image: '{found[stem]}' and '{mask}'.", "Leave one of them in the folder."
                )
            found[stem] = mask
        self.masks = [found.get(relative_name(path, data).with_suffix("").as_posix()) for path in paths]
        super().__init__(paths, [mask is not None for mask in self.masks])
        if not any(self.known):
            raise DataError(
                f"None of the {len(paths)} images of '{data}' has a mask in '{folder}'.",
                f"A mask has the name of its image, such as {relative_name(paths[0], data).with_suffix('.png').as_posix()}.",
            )
        self._check_sizes()

    def mask(self, index: int) -> Image.Image:
        path = self.masks[index]
        assert path is not None  # only of known images
        return decode(path, path, convert=_not_zero)

    def _check_sizes(self) -> None:
        """Raises DataError if a mask has another size than its image; files that are none are left for later."""
        wrong = []
        for image, mask in zip(self.paths, self.masks, strict=True):
            sizes = (upright_size(image), None if mask is None else upright_size(mask))
            if None not in sizes and sizes[0] != sizes[1]:
                wrong.append((image, mask, *sizes))
        if wrong:
            image, mask, of_image, of_mask = wrong[0]
            others = f", and {len(wrong) - 1} more are of another size" if len(wrong) > 1 else ""
            raise DataError(
                f"The mask '{mask}' has {_by(of_mask)} pixels and its image '{image}' {_by(of_image)}{others}.",
                "Masks have to be as large as their images are; resize them without interpolation.",
            )


class BoxFile(Foregrounds):
    """Boxes around objects, in a file of COCO's form; what lies in any box of an image is foreground.

    Args:
        paths: the images, below ``data``.
        data: the folder that names of images in the file are relative to, or a single image.
        file: with ``images`` (``id``, ``file_name``) and ``annotations`` (``image_id``, ``bbox``: x, y, width, height in pixels).

    Raises:
        DataError: for a file that is not there or of another form, that names none of the images, or that was made for images of
            another size.
    """

    def __init__(self, paths: Sequence[Path], data: Path, file: Path) -> None:
        named = read_boxes(file)
        names = [relative_name(path, data).as_posix() for path in paths]
        # Names as they stand first; of files that lay elsewhere the last part, where no two images share it.
        once = _unique([Path(name).name for name in names]) & _unique([Path(name).name for name in named])
        by_last = {last: entry for name, entry in named.items() if (last := Path(name).name) in once}
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
            raise DataError(
                f"The boxes in '{file}' are of images of another size: {shorten(wrong, limit=3)}.",
                "Boxes have to be in pixels of the files that are evaluated.",
            )
        if not any(self.known):
            raise DataError(
                f"The boxes file '{file}' has no boxes of any of the {len(paths)} images of '{data}'.",
                f"Their names are relative to that folder, such as '{names[0]}'.",
            )

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


def _unique(names: Sequence[str]) -> set[str]:
    """Names that are there once."""
    once: set[str] = set()
    again: set[str] = set()
    for name in names:
        (again if name in once else once).add(name)
    return once - again


def _not_zero(image: Image.Image) -> Image.Image:
    """Any kind of image as a mask: 255 where a colour (or the index of a palette) is not zero, and nothing is transparent."""
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
