"""Work for processes of a group in tests; importing this imports all that a training needs, before they are forked."""

import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from sparseformers.cli.main import main
from sparseformers.data import Batch
from sparseformers.errors import DataError
from sparseformers.train.loop import Trainer
from sparseformers.train.report import Pictures, ReportPage

for late in ("timm", "torchvision", "sparseformers.train.run", "sparseformers.cli.bootstrap", "sparseformers.cli.resume"):
    importlib.import_module(late)  # which the command line loads where it is used


@dataclass(frozen=True)
class Accident:
    """What befalls a process in mid-run: SIGKILL, an error that a user can mend, or one that nobody foresaw."""

    kind: Literal["killed", "error", "bug"]
    samples: int  # after so many images of the run
    ranks: tuple[int, ...]  # whom
    once: Path | None = None  # a file that says that it has happened, and need not again

    def happen(self) -> None:
        if self.once is not None:
            if self.once.exists():
                return
            self.once.touch()
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "error":
            raise DataError("The photographs are gone.", "Bring them back.")
        raise ValueError("no such thing")


def command(arguments: Sequence[str], seen: Path | None = None, accidents: Sequence[Accident] = ()) -> int:
    """The command line; ``seen`` is a folder for the indices of each step's images, by process."""
    torch.set_num_threads(1)
    rank, count = int(os.environ.get("RANK", "0")), Trainer._count

    def counted(trainer: Trainer, batch: Batch) -> None:
        if seen is not None:
            seen.mkdir(parents=True, exist_ok=True)
            indices = batch.indices.tolist() + [index for index, _ in batch.unreadable]
            with (seen / f"rank-{rank}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"samples": trainer.state.samples, "indices": indices}) + "\n")
        count(trainer, batch)
        for accident in accidents:
            if rank in accident.ranks and trainer.state.samples == accident.samples:
                accident.happen()

    Trainer._count = counted  # type: ignore[method-assign]
    Pictures.on_end = ReportPage.on_end = lambda *_given: None  # type: ignore[method-assign]
    return main(arguments)


if __name__ == "__main__":  # under torchrun: the accident, then the command line
    kind, samples, rank, once, *given = sys.argv[1:]
    sys.exit(command(given, accidents=[Accident(kind, int(samples), (int(rank),), Path(once))]))  # type: ignore[arg-type]
