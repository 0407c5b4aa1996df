"""Steps that were skipped because a number was not finite, and the end of a run when there are several in a row."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from sparseformers.errors import NonFiniteLossError
from sparseformers.files import write_text

IN_A_ROW = 3
"""So many skipped steps, one after the other, end a run."""

LOGGER = logging.getLogger("sparseformers")


class NonFiniteSteps:
    """The latest steps that no process made because the loss or the gradient of one of them was not finite.

    What float16's scaler skips while it looks for its scale is none of them.

    Args:
        path: takes the names of the files when the run has to stop.
        accelerator: of the process.
    """

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path, self.accelerator = path, accelerator
        self._files: list[list[str]] = []

    def made(self) -> None:
        """Notes a step that was made: those skipped before it were no row of three."""
        self._files.clear()

    def skipped(self, files: Sequence[str], *, samples: int) -> None:
        """Notes a step that was skipped, in all processes at once.

        Args:
            files: of this process's share of the batch.
            samples: images seen before the batch.

        Raises:
            NonFiniteLossError: for the third one in a row.
        """
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
        """Takes over a state of :meth:`state_dict`."""
        self._files = [list(files) for files in state["files"]]
