"""Runs student and teacher over images and gathers their embeddings. Legend: B images of a batch, M of all, D embedding width."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data import Batch, LabelledImages, SkippedImages, default_workers, evaluation_batches, images_on
from sparseformers.data.places import find, no_images
from sparseformers.errors import DataError
from sparseformers.model import SparseFormerOutput
from sparseformers.modes import autocast_dtype, evaluation_mode, inference, resolve_precision

Item = TypeVar("Item")

Advance = Callable[[int], None]  # told how many images (or texts) were done since the last call


class Progress(Protocol):
    """Shows how far long work has come; what it gives is called with each part that is done."""

    def __call__(
        self, what: str, total: int, *, unit: str = "img", doing: str = "embedding"
    ) -> AbstractContextManager[Advance]: ...


@contextmanager
def silent(what: str, total: int, *, unit: str = "img", doing: str = "embedding") -> Iterator[Advance]:
    """Shows nothing."""
    yield lambda done: None


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images to measure on, and how networks are run on them."""

    path: Path
    limit: int = 0  # images to measure on, drawn evenly from all; 0 takes all
    batch_size: int = 32
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    progress: Progress = silent
    skipped: SkippedImages = field(default_factory=SkippedImages)  # those that could not be read so far

    def look(self) -> list[Path]:
        """All images under the folder, and notes entries that cannot be read; raises DataError if there is none."""
        found = find([self.path])
        if not found.images:
            raise no_images([self.path], found)
        self.skipped.load_state_dict(found.faults)
        return found.images

    def images(self, masks: Path | None = None) -> list[Path]:
        """The images under the folder, ``limit`` at most, but for ``masks`` inside of it; raises DataError if there is none."""
        found = [path for path in self.look() if masks is None or masks.resolve() not in path.resolve().parents]
        if not found:
            raise DataError(f"The folder '{self.path}' holds masks only.", "Give the folder of the images as --data.")
        return thinned(found, self.limit)

    def judged(self, splits: Mapping[str, LabelledImages]) -> LabelledImages:
        """The labelled images to measure on, ``limit`` at most."""
        test = splits.get("test") or splits["all"]
        return replace(test, paths=tuple(thinned(test.paths, self.limit)), labels=tuple(thinned(test.labels, self.limit)))

    def batches(self, paths: Sequence[Path], preprocessing: PreprocessingConfig) -> Iterable[Batch]:
        """These images in order, as a network of that preprocessing is given them."""
        return evaluation_batches(list(paths), preprocessing, batch_size=self.batch_size, workers=default_workers())

    def autocast(self, device: torch.device) -> torch.dtype | None:
        return autocast_dtype(resolve_precision(self.precision, device))

    def running(self, device: torch.device, paths: Sequence[Path], advance: Advance, *, views: int = 1) -> dict[str, Any]:
        """How networks are run on ``views`` of each of these images, in the words of :func:`embed` and its kin."""

        def skip(index: int, reason: str) -> None:
            self.skipped.add(paths[index // views], reason)

        return {"device": device, "autocast": self.autocast(device), "progress": advance, "on_unreadable": skip}


def thinned(items: Sequence[Item], limit: int) -> list[Item]:
    """``limit`` of the items, evenly drawn in their order; all of them if they are no more than that, or for 0."""
    if not limit or limit >= len(items):
        return list(items)
    return [items[place * len(items) // limit] for place in range(limit)]


class Output(Protocol):
    """Output of a network; :class:`SparseFormerOutput` and :class:`TeacherOutput` are ones."""

    @property
    def embedding(self) -> Tensor: ...  # B x D
    @property
    def logits(self) -> Tensor | None: ...  # B x classes; None without a classifier


Network = Callable[[Tensor], Output]  # images B x 3 x H x W in [0, 1] to an output


class Embedded(NamedTuple):
    """Student's and teacher's embeddings of the same images, row by row; float32 on the CPU."""

    student: Tensor  # M x D
    teacher: Tensor  # M x D
    student_logits: Tensor | None  # M x classes; None without a classifier, or where logits were not kept
    teacher_logits: Tensor | None  # M x classes; None without a classifier, or where logits were not kept
    indices: Tensor  # M, int64: which image (or view) of the data each row is of. Unreadable ones have no row


def embed(
    student: Network,
    teacher: Network,
    batches: Iterable[Batch],
    *,
    device: torch.device | str,
    autocast: torch.dtype | None,
    progress: Advance | None = None,
    on_unreadable: Callable[[int, str], None] | None = None,
    keep_logits: bool = True,
) -> Embedded:
    """Embeds the same batches by student and teacher, under inference mode and in evaluation mode (restored afterwards).

    ``progress`` is told after each batch how many images it stood for, unreadable ones included; ``on_unreadable`` the index of
    each unreadable image and its fault. ``autocast`` is None for the networks' own precision. ``keep_logits=False`` saves memory.
    Raises DataError if there was no image to embed.
    """
    running: dict[str, Any] = {"autocast": autocast, "progress": progress, "on_unreadable": on_unreadable}
    indices, (ours, theirs) = ask((student, teacher), batches, device=device, keep_logits=keep_logits, **running)
    require_readable(len(indices))
    return Embedded(ours.embedding, theirs.embedding, ours.logits, theirs.logits, indices)


def embed_one(network: Network, batches: Iterable[Batch], **running: Any) -> Tensor:
    """The embeddings by one network alone, M x D, float32 on the CPU; as :func:`embed` in everything else."""
    indices, (answers,) = ask((network,), batches, keep_logits=False, **running)
    require_readable(len(indices))
    return answers.embedding


def require_readable(images: int) -> None:
    """Raises DataError if not one image could be read."""
    if not images:
        raise DataError("There was no image that could be read.", "Give a folder with images in it (jpg, png, webp, ...).")


class Answers(NamedTuple):
    """A network's outputs for M images; float32 on the CPU."""

    embedding: Tensor  # M x D
    logits: Tensor | None  # M x classes; None without a classifier, or where they were not kept
    rois: Tensor | None  # M x 2 x N x 4, of the first and of the last stage; None where they do not move, or were not kept

    def of(self, images: Tensor) -> Answers:
        """Those for some of the images, by a mask of M."""
        logits, rois = (None if column is None else column[images] for column in (self.logits, self.rois))
        return Answers(self.embedding[images], logits, rois)


def ask(
    networks: Sequence[Network],
    batches: Iterable[Batch],
    *,
    device: torch.device | str,
    autocast: torch.dtype | None,
    progress: Advance | None = None,
    on_unreadable: Callable[[int, str], None] | None = None,
    keep_logits: bool = True,
    keep_rois: bool = False,
) -> tuple[Tensor, list[Answers]]:
    """Indices of the M readable images, and the answers of each network to them (None where M is 0); as :func:`embed`."""
    device = torch.device(device)
    indices: list[Tensor] = []
    kept: list[dict[str, list[Tensor]]] = [{"embedding": [], "logits": [], "rois": []} for _ in networks]
    with evaluation_mode(*networks):
        for batch in told(batches, progress, on_unreadable):
            images = images_on(device, batch.images)
            with inference(device, autocast):
                for own, network in zip(kept, networks, strict=True):
                    output = network(images)
                    own["embedding"].append(output.embedding.float().cpu())
                    if keep_logits and output.logits is not None:
                        own["logits"].append(output.logits.float().cpu())
                    if keep_rois and isinstance(output, SparseFormerOutput) and output.rois.shape[1] > 1:
                        own["rois"].append(output.rois[:, [0, -1]].float().cpu())
            indices.append(torch.as_tensor(batch.indices, dtype=torch.int64).cpu())
    # Joined outside of inference mode, so that these are ordinary tensors.
    joined = [{name: torch.cat(parts) if parts else None for name, parts in own.items()} for own in kept]
    return torch.cat([torch.empty(0, dtype=torch.int64), *indices]), [Answers(**own) for own in joined]  # type: ignore[arg-type]


def told(batches: Iterable[Batch], progress: Advance | None, on_unreadable: Callable[[int, str], None] | None) -> Iterator[Batch]:
    """The batches that hold images; tells ``progress`` and ``on_unreadable`` of each batch once it is done with."""
    for batch in batches:
        if len(batch.images):
            yield batch
        if on_unreadable is not None:
            for index, reason in batch.unreadable:
                on_unreadable(index, reason)
        if progress is not None:
            progress(len(batch.images) + len(batch.unreadable))
