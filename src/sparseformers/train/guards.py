"""Guards that end a training: several steps in a row that are not finite numbers, and too many bad images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from sparseformers.data import Batch, SkippedImages
from sparseformers.data.sources import BadShare
from sparseformers.errors import NonFiniteLossError
from sparseformers.files import write_text
from sparseformers.train.setup import Parts

IN_A_ROW = 3  # skipped steps, one after the other, that end a run

LOGGER = logging.getLogger("sparseformers")


class NonFiniteSteps:
    """The latest steps that all skipped as a loss or gradient was not finite; ``path`` takes their images if the run stops."""

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path, self.accelerator = path, accelerator
        self._files: list[list[str]] = []

    def made(self) -> None:
        """Notes a step that was made, after which a row begins anew."""
        self._files.clear()

    def skipped(self, files: Sequence[str], *, samples: int) -> None:
        """Notes a step on ``files``, this process's part of a batch that all skip; NonFiniteLossError for the third in a row."""
        self._files.append(list(gather_object(list(files))))
        if self.accelerator.is_main_process:
            LOGGER.warning("%d images: a loss or gradient is not a finite number, so the step was skipped", samples)
        if len(self._files) < IN_A_ROW:
            return
        if self.accelerator.is_main_process:
            write_text(self.path, "".join(f"{file}\n" for files in self._files for file in files))
        raise NonFiniteLossError(
            f"The loss or its gradient was not a finite number {IN_A_ROW} steps in a row, after {samples:,} images, so training "
            "stopped; no step was made from them.",
            f"Look at the images listed in '{self.path}', lower --lr, or use --precision fp32; then resume the run.",
        )

    def state_dict(self) -> dict[str, Any]:
        """The files of the row so far; the same in all processes."""
        return {"files": [list(files) for files in self._files]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._files = [list(files) for files in state["files"]]


class BadImages:
    """Counts the images of each batch that cannot be read; all processes come to the same share of bad ones."""

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
