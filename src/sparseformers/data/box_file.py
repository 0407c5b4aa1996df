"""Boxes around objects from a JSON file of COCO's form."""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sparseformers.errors import DataError

Box = tuple[float, float, float, float]
"""x and y of the left upper corner, width and height, in pixels of the original image."""

FORM = 'It has to be {"images": [{"id", "file_name"}, ...], "annotations": [{"image_id", "bbox": [x, y, width, height]}, ...]}.'


class BoxedImage(NamedTuple):
    """What a file says of one image."""

    size: tuple[int, int] | None
    """Width and height in pixels, where the file tells."""
    boxes: tuple[Box, ...]
    """In the order of the file; none for an image without annotation."""


def read_boxes(path: Path) -> dict[str, BoxedImage]:
    """Reads a file of COCO's form.

    Args:
        path: JSON with ``images`` (``id``, ``file_name``, perhaps ``width`` and ``height``) and ``annotations`` (``image_id``,
            ``bbox``). What else it holds is not looked at.

    Returns:
        By file name, as the file has it but with ``/`` and without ``./``.

    Raises:
        DataError: for a file that is missing, no JSON, or of another form; the entry at fault is named.
    """
    content = _content(path)
    boxes: dict[Any, list[Box]] = {}
    images: dict[Any, tuple[str, tuple[int, int] | None]] = {}
    for place, image in enumerate(_entries(content, "images", path)):
        name, identity = image.get("file_name"), image.get("id")
        if not isinstance(name, str) or not name or not isinstance(identity, (int, str)):
            raise DataError(f"Entry {place} of the images in '{path}' has no file_name or no id.", FORM)
        if identity in images:
            raise DataError(f"Two images in '{path}' have the id {identity}.", "Give each image an id of its own.")
        images[identity] = (posixpath.normpath(name.replace("\\", "/")), _size(image))
        boxes[identity] = []
    for place, annotation in enumerate(_entries(content, "annotations", path)):
        identity = annotation.get("image_id")
        if not isinstance(identity, (int, str)) or identity not in images:
            raise DataError(f"Annotation {place} in '{path}' is of an image {identity!r} that is not listed.", FORM)
        boxes[identity].append(_box(annotation.get("bbox"), place, path))
    return {name: BoxedImage(size, tuple(boxes[identity])) for identity, (name, size) in images.items()}


def _content(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise DataError(f"There is no boxes file '{path}'.", "Check the path after --boxes.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"The boxes file '{path}' is not JSON ({type(error).__name__}).", FORM) from None
    if not isinstance(content, dict):
        raise DataError(f"The boxes file '{path}' does not hold a JSON object.", FORM)
    return content


def _entries(content: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"The boxes file '{path}' has no list of {key}.", FORM)
    return entries


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _box(value: Any, place: int, path: Path) -> Box:
    numbers = [side for side in value if _is_number(side)] if isinstance(value, list) else []
    if not isinstance(value, list) or len(value) != 4 or len(numbers) != 4 or min(numbers[2:]) < 0:
        raise DataError(
            f"Annotation {place} in '{path}' has no box of four numbers, x, y, width and height in pixels.",
            "Widths and heights are at least 0; leave out annotations without a bbox.",
        )
    x, y, width, height = map(float, numbers)
    return x, y, width, height


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
