"""Progress on images that are never trained on: the teacher speaks once, the student at every measurement.

Several processes share the images, each embeds its part, and all of them have all embeddings afterwards. Batches are the same
whatever the number of processes, and so are the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader, Dataset

from sparseformers.config import GridConfig
from sparseformers.data import (
    Batch,
    LoadedView,
    SkippedImages,
    UnreadableImageError,
    ViewKey,
    evaluation_batches,
    evaluation_view,
    fixed_views,
    images_on,
)
from sparseformers.errors import DataError
from sparseformers.evaluation import Alignment, Drift, cosine_of_each, measure_alignment, measure_drift
from sparseformers.files import printable
from sparseformers.model import SparseFormer
from sparseformers.modes import autocast_dtype, evaluation_mode, inference
from sparseformers.rois import cells, initial_grid
from sparseformers.teachers import Teacher
from sparseformers.train.processes import is_sharded
from sparseformers.train.setup import Parts

LARGEST_BATCH = 64  # images, few enough for a process that holds only its share of a step
FOCUS_IMAGES = 16  # held-out images on which the RoIs are followed


@dataclass(frozen=True, eq=False)
class Measurement:
    """The distance of a student from its teacher on M views of held-out images."""

    alignment: Alignment
    indices: Tensor  # M, int64, increasing: the views that could be read
    cosine: Tensor  # M, in [-1, 1], of each view
    centred_cosine: Tensor  # M, in [-1, 1], as seen from the teacher's mean embedding
    followed: FollowedRoIs | None = None  # on the first images; None if RoIs cannot move


@dataclass(frozen=True, eq=False)
class FollowedRoIs:
    """The RoIs of a student on the first B held-out images, on its device."""

    drift: Drift  # from a new student's RoIs
    rois: Tensor  # B x S x N x 4: at the start and after each adjustment, (x1, y1, x2, y2) in [0, 1]
    points: Tensor  # B x N x P x 2: sampling points of the last stage, (x, y) in [0, 1]


class HeldOut:
    """Held-out images with the teacher's embeddings of them; ``skipped`` takes those that cannot be read."""

    def __init__(self, parts: Parts, skipped: SkippedImages, accelerator: Accelerator) -> None:
        self.parts, self.accelerator = parts, accelerator
        self.views = max(1, parts.settings.data.eval_views)
        self.batch_size = min(parts.settings.optimisation.batch_size, LARGEST_BATCH)

        def on_unreadable(index: int, reason: str) -> None:
            skipped.add(parts.held_out.name(index // self.views), reason)

        self.indices, self.teacher = self._embed(parts.teacher, on_unreadable)
        images, self.focus_names = first_views(parts, FOCUS_IMAGES)
        self.focus_images = images.to(parts.device)

    def measure(self, student: SparseFormer) -> Measurement:
        """Measures the student as it is now; all processes have to take part."""
        indices, of_student = self._embed(student)
        # An image that could be read once may be gone by now, or be there again.
        in_both = torch.isin(indices, self.indices)
        of_student, of_teacher = of_student[in_both], self.teacher[torch.isin(self.indices, indices)]
        cosine, centred_cosine = cosine_of_each(of_student, of_teacher)
        alignment = measure_alignment(of_student, of_teacher)
        return Measurement(alignment, indices[in_both], cosine, centred_cosine, self._followed(student))

    def _followed(self, student: SparseFormer) -> FollowedRoIs | None:
        """The RoIs on the first images, if they can move."""
        parts, config = self.parts, student.config.focusing
        if not rois_move(student):
            return None
        with (
            evaluation_mode(student),
            inference(parts.device, autocast_dtype(parts.precision), gradients_later=is_sharded(student)),
        ):
            focus = student.run_front(self.focus_images)
        start = cells(config.tokens) if isinstance(config, GridConfig) else initial_grid(config.tokens)
        return FollowedRoIs(measure_drift(focus.rois, start.to(focus.rois.device)), focus.rois, focus.points[-1])

    def name(self, index: int) -> tuple[str, int | None]:
        """The name of a view's image, and the number of the view among several of it, from 0; None where there is one."""
        image, view = divmod(index, self.views)
        return self.parts.held_out.name(image), view if self.parts.settings.data.eval_views else None

    def picture(self, index: int) -> Tensor | None:
        """A view as it is measured: 3 x H x W bytes; None where its image cannot be read."""
        views = cast("Dataset[LoadedView]", self._batches().dataset)  # a loader is typed by its batches
        return views[ViewKey(0, index)].image

    def _embed(
        self, model: Teacher | SparseFormer, on_unreadable: Callable[[int, str], None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The indices of the views that can be read (M, int64, increasing), and their embeddings M x D, float32 on the CPU."""
        rows: list[tuple[Tensor, Tensor]] = []
        batches = iter(self._batches())
        with evaluation_mode(model):
            for _ in range(self._rounds()):
                batch = next(batches, None)
                if batch is not None and len(batch.images):
                    rows.append((batch.indices, self._embedding(model, batch.images)))
                elif is_sharded(model):  # its parts are with the others, and theirs are here
                    self._embedding(model, torch.rand(1, 3, *self.parts.size, generator=torch.Generator().manual_seed(0)))
                if batch is not None and on_unreadable is not None:
                    for index, reason in batch.unreadable:
                        on_unreadable(index, reason)
        if isinstance(model, FSDPModule):
            model.reshard()  # else the next step would learn with what was put together here, whatever the weights are by then
        gathered = gather_object(rows)
        if not gathered:
            raise DataError("None of the held-out images can be read any more.", "See that the folder is still there.")
        indices, order = torch.cat([indices for indices, _ in gathered]).sort()
        return indices, torch.cat([embeddings for _, embeddings in gathered])[order]

    def _embedding(self, model: nn.Module, images: Tensor) -> Tensor:
        """B x D, float32 on the CPU."""
        parts = self.parts
        images = images_on(parts.device, images)
        with inference(parts.device, autocast_dtype(parts.precision), gradients_later=is_sharded(model)):
            embedding: Tensor = model(images).embedding.float().cpu()
        return embedding.clone()  # an ordinary tensor, not one of inference mode

    def _rounds(self) -> int:
        """Batches that each process goes through, the last one of which may not be there for some."""
        images = len(self.parts.held_out) * self.views
        return -(-images // (self.batch_size * self.accelerator.num_processes))

    def _batches(self) -> DataLoader[Batch]:
        parts, settings = self.parts, self.parts.settings
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        loading = {"batch_size": self.batch_size, "workers": parts.workers, "process": process, "processes": processes}
        if settings.data.eval_views:
            views, seed = settings.data.eval_views, settings.views_seed
            return fixed_views(parts.held_out, size=parts.size, views_per_image=views, seed=seed, **loading)
        return evaluation_batches(parts.held_out, parts.teacher.preprocessing, **loading)


def rois_move(student: SparseFormer) -> bool:
    """Whether a student's RoIs can leave where they start."""
    return not isinstance(student.config.focusing, GridConfig)


def first_views(parts: Parts, count: int) -> tuple[Tensor, list[str]]:
    """The evaluation views B x 3 x H x W in [0, 1] of the first images that can be read, at most ``count``, and their file names.

    The names can be drawn: no font has letters for bytes that are no UTF-8.
    """
    view, images, names = evaluation_view(parts.teacher.preprocessing), [], []
    for index in range(len(parts.held_out)):
        try:
            images.append(view(parts.held_out.read(index)))
        except UnreadableImageError:
            continue
        names.append(printable(parts.held_out.name(index).rpartition("/")[2]))
        if len(images) == count:
            break
    return torch.stack(images), names
