"""Progress on images that are never trained on: the teacher speaks once, the student at every measurement.

Several processes share the images, each embeds its part, and all of them have all embeddings afterwards. Batches are the same
whatever the number of processes, and so are the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader

from sparseformers.bootstrap.precision import autocast_dtype
from sparseformers.bootstrap.setup import Parts
from sparseformers.bootstrap.sharding import is_sharded
from sparseformers.data import Batch, SkippedImages, evaluation_batches, fixed_views
from sparseformers.errors import DataError
from sparseformers.evaluate import Alignment, measure_alignment
from sparseformers.evaluate.modes import evaluation_mode, inference
from sparseformers.model import SparseFormer
from sparseformers.teachers import Teacher

LARGEST_BATCH = 64
"""Images in a batch, at most: few enough for a process that holds only its share of a step."""


class HeldOut:
    """Held-out images with the teacher's embeddings of them.

    Args:
        parts: of the training.
        skipped: takes the images that cannot be read; two at least can be, as the setup saw to.
        accelerator: of the process.
    """

    def __init__(self, parts: Parts, skipped: SkippedImages, accelerator: Accelerator) -> None:
        self.parts, self.accelerator = parts, accelerator
        self.views = max(1, parts.settings.eval_views)
        self.batch_size = min(parts.settings.batch_size, LARGEST_BATCH)

        def on_unreadable(index: int, reason: str) -> None:
            skipped.add(parts.held_out.name(index // self.views), reason)

        self.teacher = self._embed(parts.teacher, on_unreadable)

    def measure(self, student: SparseFormer) -> Alignment:
        """How near the student is to the teacher now; all processes have to take part."""
        return measure_alignment(self._embed(student), self.teacher)

    def _embed(self, model: Teacher | SparseFormer, on_unreadable: Callable[[int, str], None] | None = None) -> Tensor:
        """The embeddings M x D of all images that can be read, in their order, float32 on the CPU."""
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
        indices = torch.cat([indices for indices, _ in gathered])
        return torch.cat([embeddings for _, embeddings in gathered])[indices.argsort()]

    def _embedding(self, model: nn.Module, images: Tensor) -> Tensor:
        """B x D, float32 on the CPU."""
        parts = self.parts
        images = images.to(parts.device, non_blocking=True)
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
        if settings.eval_views:
            return fixed_views(
                parts.held_out,
                size=parts.size,
                views_per_image=settings.eval_views,
                seed=settings.views_from,
                batch_size=self.batch_size,
                workers=parts.workers,
                process=process,
                processes=processes,
            )
        return evaluation_batches(
            parts.held_out,
            parts.teacher.preprocessing,
            batch_size=self.batch_size,
            workers=parts.workers,
            process=process,
            processes=processes,
        )
