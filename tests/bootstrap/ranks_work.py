"""What processes of a group do in tests; importing it imports all that they need."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sparseformers.bootstrap.trainer import Trainer
from sparseformers.cli.main import main
from sparseformers.data import Batch


def command(arguments: Sequence[str], seen: Path | None = None) -> int:
    """The command line; the indices of each step go to ``seen``, if there is one."""
    torch.set_num_threads(1)
    if seen is not None:
        _record(seen)
    return main(arguments)


def _record(seen: Path) -> None:
    seen.mkdir(parents=True, exist_ok=True)
    count = Trainer._count

    def counted(trainer: Trainer, batch: Batch) -> None:
        entry: dict[str, Any] = {"samples": trainer.state.samples, "indices": batch.indices.tolist()}
        entry["indices"] += [index for index, _ in batch.unreadable]
        with (seen / f"rank-{os.environ.get('RANK', '0')}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        count(trainer, batch)

    Trainer._count = counted  # type: ignore[method-assign]
