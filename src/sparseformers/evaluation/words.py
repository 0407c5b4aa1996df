"""``evaluate --zero-shot`` and ``--captions``: from files of words to what student and teacher make of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from rich.table import Table
from torch import Tensor

from sparseformers.data import LabelledImages, labelled_splits
from sparseformers.data.labels import CaptionedImages, read_captions, read_words
from sparseformers.errors import ConfigError, DataError, TeacherError, shorten, suggest
from sparseformers.evaluation.embeddings import ImageFolder, embed, embed_one, thinned
from sparseformers.evaluation.rebuilt import LowResolutionTeacher
from sparseformers.evaluation.report import Report
from sparseformers.evaluation.zero_shot import Retrieval, ZeroShot, evaluate_retrieval, evaluate_zero_shot
from sparseformers.model import SparseFormer, WithTokens
from sparseformers.modes import inference
from sparseformers.opening import Pair
from sparseformers.teachers.registry import load_text_tower, named_templates

TEXTS_AT_ONCE = 256  # sentences that go through the text tower together


@dataclass(frozen=True)
class WordReport(Report):
    """Zero-shot classification and image-text retrieval by the teacher's own text tower; None for what was not asked."""

    zero_shot: ZeroShot | None
    retrieval: Retrieval | None
    low_resolution: LowResolution
    skipped_images: tuple[str, ...] = ()

    def tables(self, title: str) -> list[Table]:
        height, width = self.low_resolution.size
        at = f"{height}" if height == width else f"{height} x {width}"
        low = f"teacher at {at} px, {self.low_resolution.tokens} tokens"
        measured = (self.zero_shot, self.retrieval)
        return [each.table(title, low_resolution=low, skipped=len(self.skipped_images)) for each in measured if each]


@dataclass(frozen=True)
class LowResolution:
    """The teacher on smaller images."""

    size: tuple[int, int]
    tokens: int


class Words(NamedTuple):
    """Contents of files, read before a model is loaded so that a mistake in them shows at once."""

    images: LabelledImages | None  # to classify by the names of their classes; None for no zero-shot classification
    names: tuple[str, ...]
    templates: tuple[str, ...]
    captioned: CaptionedImages | None  # to measure retrieval by; None for no retrieval

    @classmethod
    def read(cls, folder: ImageFolder, zero_shot: bool, classnames: Path | None, templates: str, captions: Path | None) -> Words:
        """Reads them; raises ConfigError or DataError for files that are missing or do not fit."""
        images, captioned = None, None
        names: tuple[str, ...] = ()
        sentences: tuple[str, ...] = ()
        if zero_shot:
            splits = labelled_splits(folder.path)
            if splits is None:
                problem = f"The folder '{folder.path}' has no class folders to judge zero-shot classification by."
                raise DataError(problem, "Sort its images into CLASS folders, or measure retrieval alone with --captions FILE.")
            images = folder.judged(splits)
            names, sentences = read_class_names(classnames, images.class_names), read_templates(templates)
        if captions is not None:
            captioned = read_captions(captions, folder.path)
            captioned = captioned.only(thinned(range(len(captioned.paths)), folder.limit))
        return cls(images, names, sentences, captioned)


def measure_words(words: Words, student: SparseFormer | WithTokens, pair: Pair, folder: ImageFolder) -> WordReport:
    """Classifies by names of classes and finds by captions; ``student`` is the pair's. TeacherError without a text tower."""
    tower, width = load_text_tower(pair.teacher.identity.name), pair.teacher.anatomy.embedding_width
    if tower.width != width:
        problem = f"The text tower of '{tower.name}' has {tower.width} channels, the image embeddings have {width}."
        raise TeacherError(problem, "Give the file of one whole CLIP as --teacher.")
    tower.to(pair.device)
    tokens = student.tokens if isinstance(student, WithTokens) else student.config.focusing.tokens
    low = LowResolutionTeacher(pair.teacher, tokens).to(pair.device)
    autocast = folder.autocast(pair.device)

    def images(paths: Sequence[Path]) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Indices of the readable images, and their embeddings by teacher, student and the teacher at a low resolution."""
        with folder.progress("images", 2 * len(paths)) as advance:
            running = folder.running(pair.device, paths, advance) | {"autocast": autocast}
            once, again = (folder.batches(paths, pair.teacher.preprocessing) for _ in range(2))
            both = embed(student, pair.teacher, once, keep_logits=False, **running)
            small = embed_one(low, again, **running)
        return both.indices, (both.teacher, both.student, small)

    def texts(given: Sequence[str], kind: str, unit: str, at_once: int, embedding: Callable[[Sequence[str]], Tensor]) -> Tensor:
        parts = []
        with folder.progress(kind, len(given), unit=unit) as advance:
            for start in range(0, len(given), at_once):
                part = given[start : start + at_once]
                with inference(pair.device, autocast):
                    embedded = embedding(part).float().cpu()
                parts.append(embedded.clone())  # outside of inference mode: an ordinary tensor
                advance(len(part))
        return torch.cat(parts)

    zero_shot, retrieval = None, None
    if words.images is not None:
        indices, towers = images(words.images.paths)
        sentences = words.templates
        at_once = max(1, TEXTS_AT_ONCE // len(sentences))
        classes = texts(words.names, "class names", "names", at_once, lambda part: tower.classifier(part, sentences))
        labels = torch.tensor(words.images.labels)[indices]
        zero_shot = evaluate_zero_shot(*towers, classes, labels, templates=len(sentences))
    if words.captioned is not None:
        indices, towers = images(words.captioned.paths)
        readable = words.captioned.only(indices.tolist())
        captions = texts(readable.captions, "captions", "texts", TEXTS_AT_ONCE, tower)
        retrieval = evaluate_retrieval(*towers, captions, readable.image_of)
    return WordReport(zero_shot, retrieval, LowResolution(low.size, low.patch_count), tuple(folder.skipped.lines()))


NAMED_TEMPLATES = ("openai", "simple")


def read_templates(templates: str) -> tuple[str, ...]:
    """Sentences with ``{}`` for the name of a class: ``openai``, ``simple``, or the lines of a file; or ConfigError."""
    if templates in NAMED_TEMPLATES:
        return named_templates(templates)
    path = Path(templates)
    if not path.is_file():
        near = suggest(templates, NAMED_TEMPLATES)
        raise ConfigError(f"There is no file of templates '{path}'.", f"{near} Use openai, simple or a file.".strip())
    lines = [line.strip() for line in read_words(path).splitlines() if line.strip()]
    if not lines:
        problem = f"The file of templates '{path}' is empty."
        raise ConfigError(problem, "Write a sentence such as 'a photo of a {}.' on each line.")
    for line in lines:
        if line.count("{}") != 1 or "{" in line.replace("{}", "") or "}" in line.replace("{}", ""):
            problem = f"The template '{line}' in '{path}' does not have one place for the name of a class."
            raise ConfigError(problem, "Mark the place by {}, as in 'a photo of a {}.'.")
    return tuple(lines)


def pretty_name(folder: str) -> str:
    """The name of a class folder in a sentence: ``sea_horse`` -> ``sea horse``."""
    return " ".join(folder.replace("_", " ").replace("-", " ").split())


def read_class_names(path: Path | None, folders: Sequence[str]) -> tuple[str, ...]:
    """Names of classes in a sentence, one for each of the sorted class folders; by default those of the folders.

    A ``.json`` file has a name for each folder (an object) or a list of names; a text file a line for each folder: its name, or
    FOLDER, a tab, and its name. A list goes by the sorted order of the folders, unless it names them in another order. Raises
    DataError for a file that is missing or cannot be read, or names that do not match the folders.
    """
    pretty = [pretty_name(folder) for folder in folders]
    if path is None:
        return tuple(pretty)
    if not path.is_file():
        raise DataError(f"There is no file of class names '{path}'.", "Check the path after --classnames.")
    named, listed = _parse(path)
    if named:
        missing, unknown = set(folders) - named.keys(), named.keys() - set(folders)
        faults = {"no name": missing, "no folder": unknown}
        if told := "; ".join(f"{fault} for {shorten(names)}" for fault, names in faults.items() if names):
            near = next((near for name in sorted(unknown) if (near := suggest(name, missing))), "")
            problem = f"The class names in '{path}' do not match the class folders ({told})."
            raise DataError(problem, f"{near} Give each folder one name.".strip())
        return tuple(named[folder] for folder in folders)
    if len(listed) != len(folders):
        problem = f"The file '{path}' has {len(listed)} class names, but there are {len(folders)} class folders."
        raise DataError(problem, "Give one name for each folder in their sorted order, or lines of FOLDER, a tab, and its name.")
    by_name = {name.lower(): name for name in listed}
    known = by_name.keys() == {name.lower() for name in pretty}  # the folders' own, in another order
    return tuple(by_name[name.lower()] for name in pretty) if known else tuple(listed)


def _parse(path: Path) -> tuple[dict[str, str], list[str]]:
    """Names by folder, or a list of names; the other one is empty."""
    text = read_words(path)
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
            problem = f"Some lines of '{path}' have a folder and a tab before the class name, and some have not."
            raise DataError(problem, "Write all lines in one way.")
        named, listed = (dict(pairs), []) if lengths == {2} else ({}, [pair[0] for pair in pairs])
        if len(named) < len(pairs) and not listed:
            twice = {folder for folder, _ in pairs if sum(folder == other for other, _ in pairs) > 1}
            raise DataError(f"The file '{path}' names a class folder twice: {shorten(twice)}.", "Leave one line of each.")
    if not named and not listed:
        raise DataError(f"The file of class names '{path}' is empty.", "Write a name for each class folder.")
    if not all(name.strip() for name in [*named.values(), *listed]):
        raise DataError(f"A class name in '{path}' is empty.", "Give each class folder a name.")
    return named, listed
