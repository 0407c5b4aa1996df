"""Images that could not be read: listed by the process that met them, counted over all, and too many of them stop the run."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from sparseformers.data import Batch, SkippedImages
from sparseformers.data.sources import BadShare
from sparseformers.train.setup import Parts


class BadImages:
    """Takes notes of each batch; all processes come to the same share.

    Args:
        parts: of the training.
        accelerator: of the process.
    """

    def __init__(self, parts: Parts, accelerator: Accelerator) -> None:
        self.parts, self.accelerator = parts, accelerator
        self.skipped = SkippedImages.of(parts.train.faults())
        self.share = BadShare(missing=parts.train.missing(), images=len(parts.train), most=parts.settings.data.max_bad)

    def count(self, batch: Batch) -> bool:
        """Counts a batch, of which each process has its part; returns whether there are too many bad images to go on."""
        for index, reason in batch.unreadable:
            self.skipped.add(self.parts.train.name(index), reason)
        met, bad = len(batch.images) + len(batch.unreadable), len(batch.unreadable)
        if self.accelerator.num_processes > 1:
            met, bad = self.accelerator.reduce(torch.tensor([met, bad], device=self.accelerator.device)).tolist()
        self.share.count(met=met, bad=bad)
        return self.share.is_too_great
