"""Progress on images that are never trained on: the teacher speaks once, the student at every measurement."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.utils.data import DataLoader

from sparseformers.bootstrap.precision import autocast_dtype
from sparseformers.bootstrap.setup import Parts
from sparseformers.data import Batch, SkippedImages, evaluation_batches, fixed_views
from sparseformers.evaluate import Alignment, embed_one, measure_alignment


class HeldOut:
    """Held-out images with the teacher's embeddings of them.

    Args:
        parts: of the training.
        skipped: takes the images that cannot be read; two at least can be, as the setup saw to.
    """

    def __init__(self, parts: Parts, skipped: SkippedImages) -> None:
        self.parts = parts
        views = max(1, parts.settings.eval_views)

        def on_unreadable(index: int, reason: str) -> None:
            skipped.add(parts.held_out[index // views], reason)

        self.teacher = self._embed(parts.teacher, on_unreadable)

    def measure(self, student: nn.Module) -> Alignment:
        """How near the student is to the teacher now."""
        return measure_alignment(self._embed(student), self.teacher)

    def _embed(self, model: nn.Module, on_unreadable: Callable[[int, str], None] | None = None) -> Tensor:
        parts = self.parts
        return embed_one(
            model,
            self._batches(),
            device=parts.device,
            autocast=autocast_dtype(parts.precision),
            on_unreadable=on_unreadable,
        )

    def _batches(self) -> DataLoader[Batch]:
        parts, settings = self.parts, self.parts.settings
        if settings.eval_views:
            return fixed_views(
                parts.held_out,
                size=parts.size,
                views_per_image=settings.eval_views,
                seed=settings.views_from,
                batch_size=settings.batch_size,
                workers=parts.workers,
            )
        return evaluation_batches(
            parts.held_out, parts.teacher.preprocessing, batch_size=settings.batch_size, workers=parts.workers
        )
