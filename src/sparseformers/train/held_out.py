"""Progress on images that are never trained on: the teacher speaks once, the student at every measurement.

Several processes share the images, each embeds its part, and all of them have all embeddings afterwards. Batches are the same
whatever the number of processes, and so are the embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import Dataset

from sparseformers.config import GridConfig, MixedResolutionConfig
from sparseformers.data.dataset import Batch, LoadedView, ViewKey, evaluation_batches, fixed_views
from sparseformers.data.images import SkippedImages, UnreadableImageError
from sparseformers.data.loading import Loader, images_on
from sparseformers.data.transforms import evaluation_view
from sparseformers.errors import DataError
from sparseformers.evaluation import Alignment, Drift, cosine_of_each, measure_alignment, measure_drift
from sparseformers.evaluation.attention import AttendingTeacher, MapAgreement, measure_map
from sparseformers.evaluation.dense import dense_cosine
from sparseformers.files import printable
from sparseformers.model import SparseFormer
from sparseformers.modes import autocast_dtype, evaluation_mode, inference
from sparseformers.rois import initial_grid
from sparseformers.train.processes import is_sharded
from sparseformers.train.setup import Parts

LARGEST_BATCH = 64  # images, few enough for a process that holds only its share of a step
FOCUS_IMAGES = 16  # held-out images on which the RoIs are followed
DENSE_IMAGES = 64  # held-out images whose maps of features are compared


@dataclass(frozen=True, eq=False)
class Measurement:
    """The distance of a student from its teacher on M views of held-out images."""

    alignment: Alignment
    indices: Tensor  # M, int64, increasing: the views that could be read
    cosine: Tensor  # M, in [-1, 1], of each view
    centred_cosine: Tensor  # M, in [-1, 1], as seen from the teacher's mean embedding
    followed: FollowedRoIs | None = None  # on the first images; None if RoIs cannot move
    map: MapAgreement | None = None  # of a student that chooses its RoIs by a map
    dense_cosine: float | None = None  # centred, of each place of its maps of features to the teacher's; the mean of the first


@dataclass(frozen=True, eq=False)
class FollowedRoIs:
    """The RoIs of a student on the first B held-out images, on its device."""

    drift: Drift  # from a new student's RoIs
    rois: Tensor  # B x S x N x 4: at the start and after each adjustment, (x1, y1, x2, y2) in [0, 1]
    points: Tensor  # B x N x P x 2: sampling points of the last stage, (x, y) in [0, 1]
    maps: tuple[Tensor, Tensor] | None = None  # B x h x w each: the student's, where it has one, and the teacher's attention


class Seen(NamedTuple):
    """What a network gave for M views of held-out images, on the CPU."""

    indices: Tensor  # M, int64, increasing: the views that could be read
    embedding: Tensor  # M x D, float32
    attention_map: Tensor | None  # M x h x w, float32: where it looks, if it tells

    def among(self, indices: Tensor) -> Seen:
        kept = torch.isin(self.indices, indices)
        maps = self.attention_map
        return Seen(self.indices[kept], self.embedding[kept], None if maps is None else maps[kept])


class HeldOut:
    """Held-out images with the teacher's embeddings of them; ``skipped`` takes those that cannot be read."""

    def __init__(self, parts: Parts, skipped: SkippedImages, accelerator: Accelerator) -> None:
        self.parts, self.accelerator = parts, accelerator
        self.views = max(1, parts.settings.data.eval_views)
        self.batch_size = min(parts.settings.optimisation.batch_size, LARGEST_BATCH)

        def on_unreadable(index: int, reason: str) -> None:
            skipped.add(parts.held_out.name(index // self.views), reason)

        teacher = parts.telling_teacher()
        self.by_teacher = self._embed(teacher, on_unreadable)
        images, self.focus_names = first_views(parts, FOCUS_IMAGES)
        self.focus_images = images.to(parts.device)
        with evaluation_mode(teacher):
            seen = self._see(teacher, torch.arange(len(images)), images) if parts.has_map else None
        self.focus_maps = None if seen is None else seen.attention_map
        self.dense = self._teacher_maps(teacher) if isinstance(teacher, AttendingTeacher) and parts.settings.network.dense else []

    def measure(self, student: SparseFormer) -> Measurement:
        """Measures the student as it is now; all processes have to take part."""
        by_student = self._embed(student)
        # An image that could be read once may be gone by now, or be there again.
        ours, theirs = by_student.among(self.by_teacher.indices), self.by_teacher.among(by_student.indices)
        cosine, centred_cosine = cosine_of_each(ours.embedding, theirs.embedding)
        alignment, agreement = measure_alignment(ours.embedding, theirs.embedding), None
        if ours.attention_map is not None and theirs.attention_map is not None:
            agreement = measure_map(ours.attention_map, theirs.attention_map)
        followed, dense = self._followed(student), self._dense_cosine(student)
        return Measurement(alignment, ours.indices, cosine, centred_cosine, followed, agreement, dense)

    def _teacher_maps(self, teacher: AttendingTeacher) -> list[tuple[Tensor, Tensor]]:
        """The first images, and the teacher's maps of them, in batches on the CPU."""
        images, _ = first_views(self.parts, DENSE_IMAGES)
        seen = []
        for part in images.split(self.batch_size):
            with evaluation_mode(teacher), inference(self.parts.device, autocast_dtype(self.parts.precision)):
                seen.append((part, teacher(part.to(self.parts.device)).tokens.half().cpu().clone()))
        return seen

    def statistics_of_maps(self) -> dict[str, Any]:
        """What the objective has to know of the teacher's maps: their mean, D, and of an inner layer their variance."""
        tokens = torch.cat([theirs for _, theirs in self.dense]).float()
        centre, normed = tokens.mean(dim=(0, 2, 3)), self.parts.settings.network.dense_layer == -1
        spread = None if normed else (tokens - centre.view(-1, 1, 1)).square().mean().item()
        return {"centre": centre.to(self.parts.device), "spread": spread}

    def _dense_cosine(self, student: SparseFormer) -> float | None:
        """How near the student's maps are to the teacher's, as seen from the teacher's mean token; None if it learns none."""
        if not self.dense:
            return None
        centre, cosines = self.statistics_of_maps()["centre"].cpu(), []
        device, autocast = self.parts.device, autocast_dtype(self.parts.precision)
        for images, theirs in self.dense:
            rows, columns = theirs.shape[-2:]
            with evaluation_mode(student), inference(device, autocast, gradients_later=is_sharded(student)):
                ours = student(images.to(device), grid=(rows, columns)).dense
            cosines.append(dense_cosine(ours.cpu(), theirs, centre))
        if isinstance(student, FSDPModule):
            student.reshard()  # as above
        return torch.cat(cosines).mean().item()

    def _followed(self, student: SparseFormer) -> FollowedRoIs | None:
        config, device, autocast = student.config.focusing, self.parts.device, autocast_dtype(self.parts.precision)
        if not rois_move(student):
            return None
        with evaluation_mode(student), inference(device, autocast, gradients_later=is_sharded(student)):
            focus = student.run_front(self.focus_images)
        # Leaves have no start of their own: they are compared with the cells that they were split from.
        start = None if isinstance(config, MixedResolutionConfig) else initial_grid(config.tokens).to(focus.rois.device)
        ours, theirs = focus.attention_map, self.focus_maps
        maps = None if ours is None or theirs is None else (ours, theirs)
        return FollowedRoIs(measure_drift(focus.rois, start), focus.rois, focus.points[-1], maps)

    def name(self, index: int) -> tuple[str, int | None]:
        """The name of a view's image, and the number of the view among several of it, from 0; None where there is one."""
        image, view = divmod(index, self.views)
        return self.parts.held_out.name(image), view if self.parts.settings.data.eval_views else None

    def picture(self, index: int) -> Tensor | None:
        """A view as it is measured: 3 x H x W bytes; None where its image cannot be read."""
        views = cast("Dataset[LoadedView]", self._batches().dataset)  # a loader is typed by what comes out
        return views[ViewKey(0, index)].image

    def _embed(self, model: nn.Module, on_unreadable: Callable[[int, str], None] | None = None) -> Seen:
        rows: list[Seen] = []
        batches = iter(self._batches())
        with evaluation_mode(model):
            # Each process goes through as many batches, the last one of which may not be there for some.
            for _ in range(math.ceil(len(self.parts.held_out) * self.views / (self.batch_size * self.accelerator.num_processes))):
                batch = next(batches, None)
                if batch is not None and len(batch.images):
                    rows.append(self._see(model, batch.indices, batch.images))
                elif is_sharded(model):  # its parts are with the others, and theirs are here
                    self._see(model, torch.zeros(1), self.parts.noise)
                if batch is not None and on_unreadable is not None:
                    for index, reason in batch.unreadable:
                        on_unreadable(index, reason)
        if isinstance(model, FSDPModule):
            model.reshard()  # else the next step would learn with what was put together here, whatever the weights are by then
        gathered = gather_object(rows)
        if not gathered:
            raise DataError("None of the held-out images can be read any more.", "See that the folder is still there.")
        indices, embedding, maps = zip(*gathered, strict=True)
        sorted_indices, order = torch.cat(indices).sort()
        return Seen(sorted_indices, torch.cat(embedding)[order], None if maps[0] is None else torch.cat(maps)[order])

    def _see(self, model: nn.Module, indices: Tensor, images: Tensor) -> Seen:
        device, autocast = self.parts.device, autocast_dtype(self.parts.precision)
        with inference(device, autocast, gradients_later=is_sharded(model)):
            output = model(images_on(device, images))
        maps = getattr(output, "attention_map", None)
        # Ordinary tensors, not those of inference mode.
        return Seen(indices, output.embedding.float().cpu().clone(), None if maps is None else maps.float().cpu().clone())

    def _batches(self) -> Loader[Batch]:
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
    """The evaluation views B x 3 x H x W in [0, 1] of the first ``count`` images that can be read, and their names as drawn."""
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
