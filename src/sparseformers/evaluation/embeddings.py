"""Runs student and teacher over images and gathers their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sparseformers.data import Batch, images_on
from sparseformers.errors import DataError
from sparseformers.modes import evaluation_mode, inference


class Output(Protocol):
    """What a network has to return: :class:`SparseFormerOutput` and :class:`TeacherOutput` do."""

    @property
    def embedding(self) -> Tensor:
        """B x D."""

    @property
    def logits(self) -> Tensor | None:
        """B x classes; None without a classifier."""


class Embedded(NamedTuple):
    """Student's and teacher's embeddings of the same images, row by row; float32 on the CPU."""

    student: Tensor
    """M x D."""
    teacher: Tensor
    """M x D."""
    student_logits: Tensor | None
    """M x classes; None where the student has no classifier, or logits were not kept."""
    teacher_logits: Tensor | None
    """M x classes; None where the teacher has no classifier, or logits were not kept."""
    indices: Tensor
    """M, int64: which image (or view) of the data each row is of. Unreadable ones have no row."""


def embed(
    student: Callable[[Tensor], Output],
    teacher: Callable[[Tensor], Output],
    batches: Iterable[Batch],
    *,
    device: torch.device | str,
    autocast: torch.dtype | None,
    progress: Callable[[int], None] | None = None,
    on_unreadable: Callable[[int, str], None] | None = None,
    keep_logits: bool = True,
) -> Embedded:
    """Embeds the same batches by student and teacher, under inference mode and in evaluation mode (restored afterwards).

    Args:
        student: a SparseFormer on ``device``.
        teacher: its teacher on ``device``; both see the same images, so these have the teacher's size.
        batches: images B x 3 x H x W in [0, 1] with their indices, and the images that could not be read.
        device: where both networks are.
        autocast: precision to run both in, for example ``torch.bfloat16``; None for their own.
        progress: told after each batch how many images it stood for, unreadable ones included.
        on_unreadable: told the index of each unreadable image, and what was wrong with it.
        keep_logits: False saves memory where nothing is made of the logits (an index for neighbours).

    Raises:
        DataError: if there was no image to embed.
    """
    (of_student, of_teacher), indices = _embed_by(
        (student, teacher), batches, torch.device(device), autocast, progress, on_unreadable, keep_logits
    )
    return Embedded(of_student.embedding, of_teacher.embedding, of_student.logits, of_teacher.logits, indices)


def embed_one(
    network: Callable[[Tensor], Output],
    batches: Iterable[Batch],
    *,
    device: torch.device | str,
    autocast: torch.dtype | None,
    progress: Callable[[int], None] | None = None,
    on_unreadable: Callable[[int, str], None] | None = None,
) -> Tensor:
    """The embeddings by one network alone, M x D, float32 on the CPU; as :func:`embed` in everything else.

    Raises:
        DataError: if there was no image to embed.
    """
    (rows,), _ = _embed_by((network,), batches, torch.device(device), autocast, progress, on_unreadable, keep_logits=False)
    return rows.embedding


def _embed_by(
    networks: Sequence[Callable[[Tensor], Output]],
    batches: Iterable[Batch],
    device: torch.device,
    autocast: torch.dtype | None,
    progress: Callable[[int], None] | None,
    on_unreadable: Callable[[int, str], None] | None,
    keep_logits: bool,
) -> tuple[list[_Answers], Tensor]:
    """Each network's answers to the same M images, and which images these were."""
    rows = [_Rows(network, keep_logits) for network in networks]
    indices: list[Tensor] = []
    with evaluation_mode(*networks):
        for batch in batches:
            if len(batch.images):
                images = images_on(device, batch.images)
                with inference(device, autocast):
                    for part in rows:
                        part.add(images)
                indices.append(torch.as_tensor(batch.indices, dtype=torch.int64).cpu())
            if on_unreadable is not None:
                for index, reason in batch.unreadable:
                    on_unreadable(index, reason)
            if progress is not None:
                progress(len(batch.images) + len(batch.unreadable))
    if not indices:
        raise DataError("There was no image that could be read.", "Give a folder with images in it (jpg, png, webp, ...).")
    return [part.gathered() for part in rows], torch.cat(indices)


class _Answers(NamedTuple):
    """One network's output for all M images."""

    embedding: Tensor
    logits: Tensor | None


class _Rows:
    """What one network has said so far."""

    def __init__(self, network: Callable[[Tensor], Output], keep_logits: bool) -> None:
        self.network = network
        self.keep_logits = keep_logits
        self.embeddings: list[Tensor] = []
        self.logits: list[Tensor] = []

    def add(self, images: Tensor) -> None:
        """Runs the network on a batch."""
        output = self.network(images)
        self.embeddings.append(output.embedding.float().cpu())
        if self.keep_logits and output.logits is not None:
            self.logits.append(output.logits.float().cpu())

    def gathered(self) -> _Answers:
        """All rows; outside of inference mode, so that the copies are ordinary tensors."""
        return _Answers(torch.cat(self.embeddings), torch.cat(self.logits) if self.logits else None)
