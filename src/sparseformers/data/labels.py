"""Labels of images by class folders, and captions of images from a file."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseformers.data.places import find, find_images
from sparseformers.errors import DataError, shorten, suggest

TRAIN_FOLDER = "train"
TEST_FOLDERS = ("test", "val", "validation")  # the first that is there counts
OTHER_FOLDERS = ("unlabelled", "unlabeled")  # lie beside ``train`` and ``test`` and are no classes
IMAGE_KEYS = ("image", "file_name", "filepath", "path")  # the first that is there counts
CAPTION_KEYS = ("caption", "captions", "text", "title")  # in JSON, the value may be a list of captions


@dataclass(frozen=True)
class LabelledImages:
    """Images labelled by class folders."""

    paths: tuple[Path, ...]  # class by class
    labels: tuple[int, ...]  # the index of each image's class in ``class_names``
    class_names: tuple[str, ...]  # sorted


def labelled_splits(folder: Path) -> dict[str, LabelledImages] | None:
    """Reads labels from class folders: ``train/CLASS/*`` and ``test/CLASS/*`` (or ``val``, ``validation``), or ``CLASS/*``.

    Gives the parts ``train`` and ``test`` with the ``class_names`` of ``train``, or the part ``all`` if there is no test folder;
    None if fewer than two class folders hold images. Raises DataError for a missing folder, or a test class that is in no train.
    """
    find_images([folder])
    train = _class_folders(folder / TRAIN_FOLDER)
    test = next((classes for name in TEST_FOLDERS if (classes := _class_folders(folder / name))), {})
    if len(train) >= 2 and test:
        if unknown := test.keys() - train.keys():
            named = shorten(f"'{name}'" for name in unknown)
            problem = f"The test images of '{folder}' have classes that the training images lack: {named}."
            raise DataError(problem, "Add training images of them, or remove these folders.")
        names = tuple(sorted(train))
        return {"train": _labelled(train, names), "test": _labelled(test, names)}
    alone = train if len(train) >= 2 else _class_folders(folder)
    return {"all": _labelled(alone, tuple(sorted(alone)))} if len(alone) >= 2 else None


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    """The images of each folder in ``folder`` that holds any, but for the parts of a data set."""
    if not folder.is_dir():
        return {}
    parts = {TRAIN_FOLDER, *TEST_FOLDERS, *OTHER_FOLDERS}
    places = [place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")]
    classes = {place.name: find([place]).images for place in places if place.name not in parts}
    return {name: images for name, images in classes.items() if images}


def _labelled(classes: dict[str, list[Path]], names: tuple[str, ...]) -> LabelledImages:
    pairs = [(path, label) for label, name in enumerate(names) for path in classes.get(name, [])]
    return LabelledImages(tuple(path for path, _ in pairs), tuple(label for _, label in pairs), names)


@dataclass(frozen=True)
class CaptionedImages:
    """Images and their captions."""

    paths: tuple[Path, ...]  # in the order in which the file first names them
    captions: tuple[str, ...]
    image_of: tuple[int, ...]  # the place of each caption's image in ``paths``

    def only(self, images: Sequence[int]) -> CaptionedImages:
        """The images at these places in ``paths``, in this order and none twice, with their captions."""
        places = {image: place for place, image in enumerate(images)}
        kept = [place for place, image in enumerate(self.image_of) if image in places]
        captions, image_of = (self.captions[place] for place in kept), (places[self.image_of[place]] for place in kept)
        return CaptionedImages(tuple(self.paths[image] for image in images), tuple(captions), tuple(image_of))


def read_captions(path: Path, folder: Path) -> CaptionedImages:
    """Reads a captions file, with names relative to ``folder``; several lines may name the same image.

    A line of ``.jsonl`` is ``{"image": "a.jpg", "caption": "a cat"}``, or has a list of captions; ``.csv`` and ``.tsv`` have a
    header with the two names, then a line for each caption. Raises DataError for a file that is missing, empty or in another
    form, a missing image, or an empty or repeated caption.
    """
    if not path.is_file():
        raise DataError(f"There is no captions file '{path}'.", "Check the path after --captions.")
    if path.suffix.lower() not in (".jsonl", ".csv", ".tsv"):
        raise DataError(f"The captions file '{path}' has an unknown form.", "Its name has to end in .jsonl, .csv or .tsv.")
    text = read_words(path)
    rows = list(_json_rows(path, text) if path.suffix.lower() == ".jsonl" else _table_rows(path, text))
    if not rows:
        raise DataError(f"The captions file '{path}' holds no captions.", 'Write lines such as {"image": ..., "caption": ...}.')
    return _checked(path, folder, rows)


def read_words(path: Path) -> str:
    """The text of a file; raises DataError if it cannot be read, or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The file '{path}' cannot be read as text ({type(error).__name__}).", "Save it as UTF-8.") from None


def _checked(path: Path, folder: Path, rows: list[tuple[int, str, str]]) -> CaptionedImages:
    """The images of all rows (line, image, caption); raises DataError if something is wrong with them."""
    found: dict[str, Path] = {}
    for _, image, _ in rows:
        found.setdefault(os.path.normpath(folder / image), folder / image)  # ./a.jpg is a.jpg
    places, paths = {key: place for place, key in enumerate(found)}, tuple(found.values())
    image_of = tuple(places[os.path.normpath(folder / image)] for _, image, _ in rows)
    if missing := [str(image) for image in paths if not image.is_file()]:
        count = "an image that is" if len(missing) == 1 else f"{len(missing)} images that are"
        problem = f"The captions file '{path}' names {count} not there: {shorten(missing)}."
        raise DataError(problem, f"Names are relative to '{folder}' (--data); mend them, or leave out these lines.")
    if empty := [line for line, _, caption in rows if not caption]:
        raise DataError(f"Captions in '{path}' are empty: {_lines(empty)}.", "Write them, or leave out these lines.")
    seen: set[tuple[int, str]] = set()
    twice = []
    for (line, _, caption), place in zip(rows, image_of, strict=True):
        if (place, caption) in seen:
            twice.append(line)
        seen.add((place, caption))
    if twice:
        raise DataError(f"Captions in '{path}' stand there twice for one image: {_lines(twice)}.", "Leave out one of each.")
    return CaptionedImages(paths, tuple(caption for _, _, caption in rows), image_of)


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, str, str]]:
    for line, content in enumerate(text.split("\n"), start=1):  # a caption may hold other characters that end lines
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except json.JSONDecodeError as error:
            raise DataError(f"Line {line} of '{path}' is not JSON ({error.msg}).", "Write one object on each line.") from None
        if not isinstance(row, dict):
            raise DataError(f"Line {line} of '{path}' is not a JSON object.", 'Write {"image": ..., "caption": ...}.')
        image, said = _value(row, IMAGE_KEYS, path, line), _value(row, CAPTION_KEYS, path, line)
        captions = said if isinstance(said, list) else [said]
        if not isinstance(image, str) or not all(isinstance(caption, str) for caption in captions):
            raise DataError(f"Line {line} of '{path}' holds something else than text.", "Image and captions are text.")
        if not captions:
            raise DataError(f"The image on line {line} of '{path}' has no caption.", "Write one, or leave out the line.")
        for caption in captions:
            yield line, image, caption.strip()


def _table_rows(path: Path, text: str) -> Iterator[tuple[int, str, str]]:
    separator = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="", strict=True)
    try:
        for row in reader:
            image, caption = _value(row, IMAGE_KEYS, path, 1), _value(row, CAPTION_KEYS, path, 1)
            if None in row:
                problem = f"Line {reader.line_num} of '{path}' has more columns than the header."
                raise DataError(problem, f"Put a caption that holds a '{separator}' in double quotes.")
            yield reader.line_num, image, caption.strip()
    except csv.Error as error:
        raise DataError(f"Line {reader.line_num} of '{path}' cannot be read ({error}).", "Check its double quotes.") from None


def _value(row: dict[Any, Any], keys: tuple[str, ...], path: Path, line: int) -> Any:
    if (key := next((key for key in keys if key in row), None)) is not None:
        return row[key]
    near = next((near for name in row if name and (near := suggest(str(name), keys))), "")
    problem = f"Line {line} of '{path}' has no '{keys[0]}'."
    raise DataError(problem, f"{near} It may also be called {', '.join(keys[1:])}.".strip())


def _lines(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:10])) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
    return f"line {shown}" if len(numbers) == 1 else f"lines {shown}"
