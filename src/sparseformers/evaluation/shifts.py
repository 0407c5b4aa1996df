"""How much of the alignment holds on images unlike those that a student was trained on, and what its RoIs do there.

Legend: M images, D embedding width, N latent tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparseformers.data import Batch, ImageViews, images_on, views_in_order
from sparseformers.errors import DataError
from sparseformers.evaluation.alignment import centred_cosine
from sparseformers.evaluation.conditions import Condition, ImageView, SmallView
from sparseformers.evaluation.shift_report import PoorImage, RoIFigures, ShiftFigures, ShiftReport, ShiftRow
from sparseformers.model import SparseFormer
from sparseformers.model.sparseformer import SparseFormerOutput
from sparseformers.modes import evaluation_mode, inference
from sparseformers.rois import centre_and_size
from sparseformers.teachers import Teacher, TeacherOutput

STUDENT, TEACHER, LOW_RESOLUTION = "student", "teacher", "low_resolution"


class Answers(NamedTuple):
    """What a network says of M images; float32 on the CPU."""

    indices: Tensor
    """M, int64: which image each row is of."""
    embedding: Tensor
    """M x D."""
    logits: Tensor | None
    """M x classes; None without a classifier."""
    rois: Tensor | None
    """M x 2 x N x 4, the RoIs of the first and of the last stage; None of a network without RoIs."""

    @classmethod
    def of(cls, indices: Tensor, output: SparseFormerOutput | TeacherOutput) -> Answers:
        """The answers to one batch, copied."""
        rois = output.rois[:, [0, -1]].float().cpu() if isinstance(output, SparseFormerOutput) else None
        logits = None if output.logits is None else output.logits.float().cpu()
        return cls(indices, output.embedding.float().cpu(), logits, rois)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """The answers to several batches as one; there is at least one batch."""
        return cls(
            indices=torch.cat([part.indices for part in parts]),
            embedding=torch.cat([part.embedding for part in parts]),
            logits=_joined([part.logits for part in parts]),
            rois=_joined([part.rois for part in parts]),
        )

    def of_images(self, indices: Tensor) -> Answers:
        """The rows of these images alone."""
        kept = torch.isin(self.indices, indices)
        return Answers(
            indices=self.indices[kept],
            embedding=self.embedding[kept],
            logits=None if self.logits is None else self.logits[kept],
            rois=None if self.rois is None else self.rois[kept],
        )


def _joined(columns: Sequence[Tensor | None]) -> Tensor | None:
    """Columns of batches as one; None where a network does not have it."""
    given = [column for column in columns if column is not None]
    return torch.cat(given) if given else None


AllAnswers = Mapping[tuple[str, ImageView], Answers]
"""By network and by what it saw of the images; all of the same images."""


def views_of(conditions: Iterable[Condition]) -> dict[ImageView, set[str]]:
    """Each different view of the images, with the networks that see it; for each, one pass over the images is made."""
    views: dict[ImageView, set[str]] = {}
    for condition in conditions:
        views.setdefault(condition.student, set()).update((STUDENT, LOW_RESOLUTION))
        views.setdefault(condition.teacher, set()).add(TEACHER)
    return views


def measure_shifts(
    student: SparseFormer,
    teacher: Teacher,
    paths: Sequence[Path],
    conditions: Sequence[Condition],
    *,
    labels: Sequence[int] | None = None,
    low_resolution: nn.Module | None = None,
    seed: int = 0,
    worst: int = 10,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | str,
    autocast: torch.dtype | None,
    progress: Callable[[int], None] | None = None,
    on_unreadable: Callable[[int, str], None] | None = None,
) -> ShiftReport:
    """Measures a student beside its teacher in conditions, under inference mode and in evaluation mode (restored afterwards).

    Args:
        student: any SparseFormer, on ``device``; it sees every condition.
        teacher: its teacher, on ``device``; it sees images of its own size only.
        paths: the images.
        conditions: from :func:`~sparseformers.evaluation.conditions.shift_conditions`; the first one is the clean one.
        labels: the output of the teacher's classifier that is right for each image; None if unknown.
        low_resolution: the teacher at a lower resolution, on ``device``; it sees what the student sees.
        seed: of what is random in conditions; each image has its own draw, the same one every time.
        worst: how many of the worst aligned images to name.
        batch_size: images at a time.
        workers: processes to read with; 0 reads in this one.
        device: where the networks are.
        autocast: precision to run all of them in; None for their own.
        progress: told after each batch of each pass how many images it was, unreadable ones included.
        on_unreadable: told in each pass the place in ``paths`` of an unreadable image, and what was wrong with it.

    Raises:
        DataError: if fewer than two images can be read: their mean, which is subtracted, would say nothing.
    """
    networks: dict[str, nn.Module] = {STUDENT: student, TEACHER: teacher}
    if low_resolution is not None:
        networks[LOW_RESOLUTION] = low_resolution
    answers: dict[tuple[str, ImageView], Answers] = {}
    readable = torch.arange(len(paths))
    for view, names in views_of(conditions).items():
        views = ImageViews(paths, view, seed=seed)
        batches = views_in_order(views, epochs=1, batch_size=batch_size, workers=workers)
        shown = {name: network for name, network in networks.items() if name in names}
        answered = _ask(shown, _told(batches, progress, on_unreadable), torch.device(device), autocast)
        answers |= {(name, view): rows for name, rows in answered.items()}
        # A file may go while the others are measured: what is compared is of the same images throughout.
        found = next(iter(answered.values())).indices if answered else readable[:0]
        readable = readable[torch.isin(readable, found)]
        if len(readable) < 2:
            raise DataError(
                f"Shifts can only be measured on two images or more, not on {len(readable)}.",
                "Evaluate on a folder with more readable images.",
            )
    answers = {key: rows.of_images(readable) for key, rows in answers.items()}
    rows = _rows(answers, conditions, None if labels is None else torch.as_tensor(labels)[readable], seed)
    return ShiftReport(
        rows=(rows[0], *sorted(rows[1:], key=lambda row: -row.loss)),
        worst=_worst(answers, conditions[0], [str(paths[index]) for index in readable.tolist()], worst),
        images=len(readable),
        skipped=len(paths) - len(readable),
    )


def _told(
    batches: Iterable[Batch],
    progress: Callable[[int], None] | None,
    on_unreadable: Callable[[int, str], None] | None,
) -> Iterable[Batch]:
    """The batches that hold images; whoever wants to know is told of each batch when it is done with."""
    for batch in batches:
        if len(batch.images):
            yield batch
        if on_unreadable is not None:
            for index, reason in batch.unreadable:
                on_unreadable(index, reason)
        if progress is not None:
            progress(len(batch.images) + len(batch.unreadable))


def _ask(
    networks: Mapping[str, nn.Module], batches: Iterable[Batch], device: torch.device, autocast: torch.dtype | None
) -> dict[str, Answers]:
    """What each network says of the same images; nothing if there are none."""
    parts: dict[str, list[Answers]] = {name: [] for name in networks}
    with evaluation_mode(*networks.values()):
        for batch in batches:
            images = images_on(device, batch.images)
            with inference(device, autocast):
                for name, network in networks.items():
                    parts[name].append(Answers.of(batch.indices, network(images)))
    # Joined outside of inference mode, so that these are ordinary tensors.
    return {name: Answers.joined(own) for name, own in parts.items() if own}


def _rows(answers: AllAnswers, conditions: Sequence[Condition], labels: Tensor | None, seed: int) -> list[ShiftRow]:
    """A row for each condition; ``labels`` are those of the rows of the answers."""
    clean = answers[TEACHER, conditions[0].teacher]
    rows: list[ShiftRow] = []
    for condition in conditions:
        target = answers[TEACHER, condition.teacher]
        seen = answers[STUDENT, condition.student]
        low = answers.get((LOW_RESOLUTION, condition.student))
        student = _figures(seen, target, clean, labels)
        rows.append(
            ShiftRow(
                condition=condition.name,
                loss=rows[0].student.same_image - student.same_image if rows else 0.0,
                student=student,
                teacher=_figures(target, target, clean, labels),
                low_resolution=None if low is None else _figures(low, target, clean, labels),
                rois=_roi_figures(seen, condition, seed),
            )
        )
    return rows


def _figures(answers: Answers, target: Answers, clean: Answers, labels: Tensor | None) -> ShiftFigures:
    """Of one network: ``target`` and ``clean`` are the teacher's answers to the same and to the clean images."""
    top1 = None
    if labels is not None and answers.logits is not None:
        top1 = (answers.logits.argmax(dim=1) == labels).double().mean().item()
    return ShiftFigures(
        same_image=centred_cosine(answers.embedding, target.embedding).mean().item(),
        clean_image=centred_cosine(answers.embedding, clean.embedding).mean().item(),
        top1=top1,
    )


def _roi_figures(answers: Answers, condition: Condition, seed: int) -> RoIFigures:
    first, last = _stages(answers)
    centres, sizes = zip(centre_and_size(first), centre_and_size(last), strict=True)  # each of both stages, M x N x 2
    ratio = (sizes[1] / sizes[0].clamp_min(1e-6)).prod(dim=-1).sqrt()
    shares: list[float | None] = [None, None]
    if isinstance(condition.student, SmallView):
        boxes = torch.tensor([condition.student.object_box(seed, index) for index in answers.indices.tolist()])[:, None]
        inside = [(centre >= boxes[..., :2]).all(dim=-1) & (centre <= boxes[..., 2:]).all(dim=-1) for centre in centres]
        shares = [each.float().mean().item() for each in inside]
    return RoIFigures(_movement(answers).mean().item(), ratio.mean().item(), *shares)


def _movement(answers: Answers) -> Tensor:
    """How far each image's RoIs move between the first and the last stage, in sizes of the first: M."""
    first, last = _stages(answers)
    (centre, size), (moved, _) = centre_and_size(first), centre_and_size(last)
    return ((moved - centre) / size.clamp_min(1e-6)).norm(dim=-1).mean(dim=-1)


def _stages(answers: Answers) -> tuple[Tensor, Tensor]:
    """The RoIs of the first and of the last stage, M x N x 4 each."""
    if answers.rois is None:
        raise ValueError("a student without RoIs was measured")
    return answers.rois[:, 0], answers.rois[:, 1]


def _worst(answers: AllAnswers, clean: Condition, names: Sequence[str], count: int) -> tuple[PoorImage, ...]:
    """The images that are aligned worst; ``names`` are those of the answers' rows."""
    student = answers[STUDENT, clean.student]
    cosines = centred_cosine(student.embedding, answers[TEACHER, clean.teacher].embedding)
    movement = _movement(student)
    order = cosines.argsort()[:count].tolist()
    return tuple(PoorImage(names[row], cosines[row].item(), movement[row].item()) for row in order)
