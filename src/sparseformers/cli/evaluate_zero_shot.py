"""What ``sparseformers evaluate`` measures in words: zero-shot classification, and image-text retrieval."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from sparseformers.cli.output import print_json, print_whole
from sparseformers.cli.progress import embedding_progress, thinned
from sparseformers.cli.run_pair import Pair
from sparseformers.data import LabelledImages, SkippedImages, default_workers, evaluation_batches, labelled_splits
from sparseformers.data.captions import CaptionedImages, read_captions
from sparseformers.errors import ConfigError, DataError, TeacherError
from sparseformers.evaluation import embed, embed_one
from sparseformers.evaluation.low_resolution import LowResolutionTeacher
from sparseformers.evaluation.prompts import read_class_names, read_templates
from sparseformers.evaluation.retrieval import Retrieval, evaluate_retrieval, retrieval_table
from sparseformers.evaluation.zero_shot import ZeroShot, evaluate_zero_shot, zero_shot_table
from sparseformers.model import SparseFormer, WithTokens
from sparseformers.modes import autocast_dtype, inference, resolve_precision
from sparseformers.teachers.registry import load_text_tower

TEXTS_AT_ONCE = 256
"""How many sentences go through the text tower together."""


@dataclass(frozen=True)
class InWords:
    """What to measure in words; the options of the command."""

    data: Path
    """The folder of images."""
    zero_shot: bool
    """Whether to classify the images of class folders by the names of their classes."""
    classnames: Path | None
    """A file with these names; None for those of the folders."""
    templates: str
    """``openai``, ``simple``, or a file with sentences."""
    captions: Path | None
    """A file with captions to measure retrieval by; None for no retrieval."""
    limit: int
    """Most images to measure on; 0 for all."""
    batch_size: int
    """Images at a time."""
    precision: Literal["auto", "fp32", "bf16"]
    """Of the matrix products."""

    def check(self) -> None:
        """Raises ConfigError for options that say nothing without another one."""
        for option, given in (("--classnames", self.classnames is not None), ("--templates", self.templates != "openai")):
            if given and not self.zero_shot:
                raise ConfigError(f"{option} is for zero-shot classification only.", "Add --zero-shot, or leave it out.")

    def run(self, load: Callable[[], Pair], title: str, console: Console, *, as_json: bool) -> None:
        """Measures and prints.

        Args:
            load: gives student and teacher; called when all files are known to be right.
            title: of the tables.
            console: where to print them.
            as_json: print JSON instead.
        """
        words = _Words(self)
        pair = load()
        measured = _Measurement(self, pair, console)
        zero_shot = None if words.images is None else measured.zero_shot(words.images, words.names, words.templates)
        retrieval = None if words.captioned is None else measured.retrieval(words.captioned)
        skipped = measured.skipped
        if as_json:
            print_json(
                {
                    "zero_shot": zero_shot and zero_shot.to_dict(),
                    "retrieval": retrieval and retrieval.to_dict(),
                    "low_resolution": {"size": list(measured.low.size), "tokens": measured.side**2},
                    "skipped_images": skipped.lines(),
                }
            )
            return
        low = f"teacher at {measured.low.size[0]} px, {measured.side**2} tokens"
        if zero_shot is not None:
            print_whole(zero_shot_table(zero_shot, title, low_resolution=low, skipped=len(skipped)), console)
        if retrieval is not None:
            print_whole(retrieval_table(retrieval, title, low_resolution=low, skipped=len(skipped)), console)
        for line in skipped.lines():
            console.print(f"skipped: {line}", highlight=False, markup=False, soft_wrap=True)


class _Words:
    """All that is read from files before a model is loaded, so that a mistake in them shows at once."""

    def __init__(self, options: InWords) -> None:
        self.images: LabelledImages | None = None
        self.names: tuple[str, ...] = ()
        self.templates: tuple[str, ...] = ()
        self.captioned: CaptionedImages | None = None
        if options.zero_shot:
            splits = labelled_splits(options.data)
            if splits is None:
                raise DataError(
                    f"The folder '{options.data}' has no class folders to judge zero-shot classification by.",
                    "Sort its images into CLASS folders, or measure retrieval alone with --captions FILE.",
                )
            test = splits.get("test") or splits["all"]
            paths, labels = thinned(test.paths, options.limit), thinned(test.labels, options.limit)
            self.images = dataclasses.replace(test, paths=tuple(paths), labels=tuple(labels))
            self.names = read_class_names(options.classnames, test.class_names)
            self.templates = read_templates(options.templates)
        if options.captions is not None:
            self.captioned = _thinned_captions(read_captions(options.captions, options.data), options.limit)


def _thinned_captions(captioned: CaptionedImages, limit: int) -> CaptionedImages:
    """At most ``limit`` of the images, with their captions."""
    return captioned.only(thinned(range(len(captioned.paths)), limit))


class _Rows(NamedTuple):
    """Embeddings M x D of the same images."""

    teacher: Tensor
    student: Tensor
    low_resolution: Tensor
    indices: Tensor
    """M: which image each row is of."""


class _Measurement:
    """Student, teacher, the teacher at a lower resolution and its text tower, and what they make of images and words."""

    def __init__(self, options: InWords, pair: Pair, console: Console) -> None:
        self.options, self.pair, self.console = options, pair, console
        self.text = load_text_tower(pair.teacher.identity.name)
        if self.text.width != pair.teacher.anatomy.embedding_width:
            raise TeacherError(
                f"The text tower of '{self.text.name}' has {self.text.width} channels, the image embeddings have "
                f"{pair.teacher.anatomy.embedding_width}.",
                "Give the file of one whole CLIP as --teacher.",
            )
        self.text.to(pair.device)
        self.side = max(1, round(math.sqrt(_tokens(pair.student))))
        self.low = LowResolutionTeacher(pair.teacher, self.side).to(pair.device)
        self.autocast = autocast_dtype(resolve_precision(options.precision, pair.device))
        self.skipped = SkippedImages()

    def zero_shot(self, images: LabelledImages, names: Sequence[str], templates: Sequence[str]) -> ZeroShot:
        """Classifies images by the names of their classes."""
        rows = self._embed(images.paths)
        labels = torch.tensor(images.labels)[rows.indices]
        at_once = max(1, TEXTS_AT_ONCE // len(templates))
        with embedding_progress(self.console, "class names", len(names), unit="names") as advance:
            classes = self._in_parts(names, at_once, lambda part: self.text.classifier(part, templates), advance)
        return evaluate_zero_shot(rows.teacher, rows.student, rows.low_resolution, classes, labels, templates=len(templates))

    def retrieval(self, captioned: CaptionedImages) -> Retrieval:
        """Finds images by captions, and captions by images."""
        rows = self._embed(captioned.paths)
        readable = captioned.only(rows.indices.tolist())
        with embedding_progress(self.console, "captions", len(readable.captions), unit="texts") as advance:
            texts = self._in_parts(readable.captions, TEXTS_AT_ONCE, self.text, advance)
        return evaluate_retrieval(rows.teacher, rows.student, rows.low_resolution, texts, readable.image_of)

    def _in_parts(
        self,
        texts: Sequence[str],
        at_once: int,
        embed_texts: Callable[[Sequence[str]], Tensor],
        advance: Callable[[int], None],
    ) -> Tensor:
        parts = []
        for start in range(0, len(texts), at_once):
            part = texts[start : start + at_once]
            with inference(self.pair.device, self.autocast):
                embedded = embed_texts(part).float().cpu()
            parts.append(embedded.clone())  # outside of inference mode: an ordinary tensor
            advance(len(part))
        return torch.cat(parts)

    def _embed(self, paths: Sequence[Path]) -> _Rows:
        """Two passes over the images: student and teacher, then the teacher at the lower resolution."""
        pair, paths = self.pair, list(paths)

        def batches():  # type: ignore[no-untyped-def]
            return evaluation_batches(
                paths, pair.teacher.preprocessing, batch_size=self.options.batch_size, workers=default_workers()
            )

        with embedding_progress(self.console, "images", 2 * len(paths)) as advance:
            both = embed(
                pair.student,
                pair.teacher,
                batches(),
                device=pair.device,
                autocast=self.autocast,
                progress=advance,
                on_unreadable=lambda index, reason: self.skipped.add(paths[index], reason),
                keep_logits=False,
            )
            low = embed_one(self.low, batches(), device=pair.device, autocast=self.autocast, progress=advance)
        return _Rows(both.teacher, both.student, low, both.indices)


def _tokens(student: SparseFormer | WithTokens) -> int:
    return student.tokens if isinstance(student, WithTokens) else student.config.focusing.tokens
