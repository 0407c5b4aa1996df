"""What classes are called, and the sentences that their names are put in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sparseformers.errors import ConfigError, DataError, shorten, suggest
from sparseformers.teachers.registry import named_templates

NAMED_TEMPLATES = ("openai", "simple")
"""Lists of sentences that go by name, see :func:`~sparseformers.teachers.registry.named_templates`."""


def read_templates(templates: str) -> tuple[str, ...]:
    """Sentences with ``{}`` for the name of a class.

    Args:
        templates: ``openai``, ``simple``, or the path of a text file with a sentence on each line; empty lines do not count.

    Raises:
        ConfigError: for a file that is missing or empty, or a line that does not have just one ``{}``.
        MissingExtraError: if a named list is asked for and OpenCLIP is not installed.
    """
    if templates in NAMED_TEMPLATES:
        return named_templates(templates)
    path = Path(templates)
    if not path.is_file():
        near = suggest(templates, NAMED_TEMPLATES)
        raise ConfigError(f"There is no file of templates '{path}'.", f"{near} Use openai, simple or a file.".strip())
    lines = [line.strip() for line in _read(path).splitlines() if line.strip()]
    if not lines:
        raise ConfigError(
            f"The file of templates '{path}' is empty.", "Write a sentence such as 'a photo of a {}.' on each line."
        )
    for line in lines:
        if line.count("{}") != 1 or "{" in line.replace("{}", "") or "}" in line.replace("{}", ""):
            raise ConfigError(
                f"The template '{line}' in '{path}' does not have one place for the name of a class.",
                "Mark the place by {}, as in 'a photo of a {}.'.",
            )
    return tuple(lines)


def pretty_name(folder: str) -> str:
    """What a class folder is called in a sentence: ``sea_horse`` -> ``sea horse``."""
    return " ".join(folder.replace("_", " ").replace("-", " ").split())


def read_class_names(path: Path | None, folders: Sequence[str]) -> tuple[str, ...]:
    """What the classes are called in a sentence.

    Args:
        path: None for the names of the folders themselves. A ``.json`` file with a name for each folder (an object), or with
            a list of names; or a text file with a line for each folder: its name, or FOLDER, a tab, and its name. Names
            without folders go by the sorted order of the folders, unless they are those of the folders in another order.
        folders: names of the class folders, sorted.

    Returns:
        A name for each folder.

    Raises:
        DataError: for a file that is missing or cannot be read, or names that do not match the folders.
    """
    if path is None:
        return tuple(pretty_name(folder) for folder in folders)
    if not path.is_file():
        raise DataError(f"There is no file of class names '{path}'.", "Check the path after --classnames.")
    named, listed = _parse(path)
    if named:
        return _by_folder(named, folders, path)
    by_name = {name.lower(): name for name in listed}
    if len(listed) == len(folders) and by_name.keys() == {pretty_name(folder).lower() for folder in folders}:
        return tuple(by_name[pretty_name(folder).lower()] for folder in folders)
    if len(listed) != len(folders):
        raise DataError(
            f"The file '{path}' has {len(listed)} class names, but there are {len(folders)} class folders.",
            "Give one name for each folder in their sorted order, or lines of FOLDER, a tab, and its name.",
        )
    return tuple(listed)


def _by_folder(named: dict[str, str], folders: Sequence[str], path: Path) -> tuple[str, ...]:
    faults = []
    if missing := set(folders) - named.keys():
        faults.append(f"no name for {shorten(missing)}")
    if unknown := named.keys() - set(folders):
        faults.append(f"no folder for {shorten(unknown)}")
    if faults:
        raise DataError(
            f"The class names in '{path}' do not match the class folders ({'; '.join(faults)}).",
            f"{next((near for name in sorted(unknown) if (near := suggest(name, missing))), '')} "
            "Give each folder one name.".strip(),
        )
    return tuple(named[folder] for folder in folders)


def _parse(path: Path) -> tuple[dict[str, str], list[str]]:
    """Names by folder, or a list of names; the other one is empty."""
    text = _read(path)
    if path.suffix == ".json":
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"The class names in '{path}' are no JSON ({error}).", "Give an object or a list.") from None
        names = list(content.values()) if isinstance(content, dict) else content
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"The class names in '{path}' are not all text.", 'Write {"FOLDER": "name", ...}.')
        named, listed = (content, []) if isinstance(content, dict) else ({}, names)
    else:
        lines = [line for line in text.splitlines() if line.strip()]
        pairs = [[part.strip() for part in line.split("\t", 1)] for line in lines]
        lengths = {len(pair) for pair in pairs}
        if len(lengths) > 1:
            raise DataError(
                f"Some lines of '{path}' have a folder and a tab before the class name, and some have not.",
                "Write all lines in one way.",
            )
        named, listed = (dict(pairs), []) if lengths == {2} else ({}, [pair[0] for pair in pairs])
        if len(named) < len(pairs) and not listed:
            twice = {folder for folder, _ in pairs if sum(folder == other for other, _ in pairs) > 1}
            raise DataError(f"The file '{path}' names a class folder twice: {shorten(twice)}.", "Leave one line of each.")
    if not named and not listed:
        raise DataError(f"The file of class names '{path}' is empty.", "Write a name for each class folder.")
    if not all(name.strip() for name in [*named.values(), *listed]):
        raise DataError(f"A class name in '{path}' is empty.", "Give each class folder a name.")
    return named, listed


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The file '{path}' cannot be read as text ({type(error).__name__}).", "Save it as UTF-8.") from None
