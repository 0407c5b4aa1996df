"""How a network is judged: by the measures of ``sparseformers evaluate``, against the teacher's answers, computed once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.recipes.progress import embedding_bar
from sparseformers.config import PreprocessingConfig
from sparseformers.data import LabelledImages, SkippedImages, default_workers, evaluation_batches, labelled_splits
from sparseformers.errors import DataError
from sparseformers.evaluation import Cost, Embedded, Evaluation, embed, evaluate_labelled, measure_cost
from sparseformers.files import replacing
from sparseformers.modes import Precision, autocast_dtype
from sparseformers.teachers import Teacher, TeacherOutput

BATCH = 32
"""Images at a time."""


@dataclass(frozen=True)
class Measurement:
    """How a network does beside the teacher on the test images, and what one image costs."""

    evaluation: Evaluation
    cost: Cost


class EvaluationImages(NamedTuple):
    """The images to judge on: those that are classified, and those that the teacher's index for neighbours is made of."""

    test: LabelledImages
    train: LabelledImages

    @classmethod
    def of(cls, folder: Path) -> EvaluationImages:
        """Reads the labelled images of a folder; raises DataError if it is missing, or has no labelled test part."""
        splits = labelled_splits(folder)
        if splits is None or "test" not in splits:
            raise DataError(
                f"The folder '{folder}' has no labelled test part.", "Give --eval-data one with train/CLASS/* and test/CLASS/*."
            )
        return cls(test=splits["test"], train=splits["train"])

    def digest(self) -> str:
        """SHA-256 over names and labels of all images: tells whether answers are those to these images."""
        listed = [(part.class_names, part.labels, [path.name for path in part.paths]) for part in self]
        return hashlib.sha256(json.dumps(listed).encode("utf-8", "surrogateescape")).hexdigest()


class Answers(NamedTuple):
    """What a network says of M images: M x D, M x classes where there is a classifier, and the images' numbers (int64)."""

    embedding: Tensor
    logits: Tensor | None
    indices: Tensor


class TeacherAnswers(NamedTuple):
    """The teacher's answers to the test images, and to the training images."""

    test: Answers
    train: Answers


@dataclass(frozen=True)
class Judge:
    """Judges networks on the same images in the same precision; a text ``what`` is shown while images are embedded.

    The preprocessing is the teacher's at the comparison's size, ``class_names`` are those of its classifier, where known.
    """

    images: EvaluationImages
    preprocessing: PreprocessingConfig
    class_names: tuple[str, ...] | None
    precision: Precision
    device: torch.device
    workers: int | None
    console: Console

    def answers(self, network: nn.Module, images: LabelledImages, what: str) -> tuple[Answers, int]:
        """What a network says of images, and how many of these could not be read."""
        skipped = SkippedImages()
        batches = evaluation_batches(
            images.paths,
            self.preprocessing,
            batch_size=BATCH,
            workers=default_workers() if self.workers is None else self.workers,
        )
        with embedding_bar(self.console, what, len(images.paths)) as advance:
            embedded = embed(
                network.to(self.device),
                _silent,
                batches,
                device=self.device,
                autocast=autocast_dtype(self.precision),
                progress=advance,
                on_unreadable=lambda index, reason: skipped.add(images.paths[index], reason),
            )
        return Answers(embedded.student, embedded.student_logits, embedded.indices), len(skipped)

    def measure(self, network: nn.Module, teacher: TeacherAnswers, what: str) -> Measurement:
        """Judges a network that takes images at the comparison's size."""
        answers, skipped = self.answers(network, self.images.test, what)
        cost = measure_cost(network, self.preprocessing.size)
        return Measurement(self.evaluate(answers, teacher, skipped), cost)

    def evaluate(self, answers: Answers, teacher: TeacherAnswers, skipped: int) -> Evaluation:
        """Judges answers to the test images; ``knn_student`` is None, as only the teacher makes an index."""
        test = self.images.test
        evaluation = evaluate_labelled(
            Embedded(answers.embedding, teacher.test.embedding, answers.logits, teacher.test.logits, answers.indices),
            test.labels,
            Embedded(teacher.train.embedding, teacher.train.embedding, None, None, teacher.train.indices),
            self.images.train.labels,
            len(test.class_names),
            False,
            class_names=test.class_names,
            teacher_class_names=self.class_names,
            skipped=skipped,
        )
        return dataclasses.replace(evaluation, knn_student=None)


def teacher_answers(judge: Judge, teacher: Teacher, path: Path, key: str) -> TeacherAnswers:
    """The teacher's answers, read from the safetensors file ``path`` if that has this ``key``, else made and put there."""
    kept = _read_answers(path, key)
    if kept is not None:
        return kept
    test, _ = judge.answers(teacher, judge.images.test, "test images by the teacher")
    train, _ = judge.answers(teacher, judge.images.train, "training images by the teacher")
    named = {
        f"{part}.{name}": value for part, rows in (("test", test), ("train", train)) for name, value in rows._asdict().items()
    }
    with replacing(path) as temporary:
        save_file({name: value for name, value in named.items() if value is not None}, temporary, metadata={"key": key})
    return TeacherAnswers(test, train)


def _read_answers(path: Path, key: str) -> TeacherAnswers | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (SafetensorError, OSError):
        return None  # cut short: computed again
    test, train = (
        Answers(rows[f"{part}.embedding"], rows.get(f"{part}.logits"), rows[f"{part}.indices"]) for part in ("test", "train")
    )
    return TeacherAnswers(test, train)


def _silent(images: Tensor) -> TeacherOutput:
    """Stands where the teacher would answer the same images once more: its answers are known."""
    return TeacherOutput(images.new_empty(len(images), 0), None)
