"""``sparseformers profile``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from sparseformers.cli.output import console_for, options, print_json, print_whole, say


@dataclass(frozen=True)
class Profile:
    """Measure what a student costs beside its teacher: parameters, multiply-adds, images a second and latency on this machine.

    Both are timed in turns, so that whatever else the machine does slows both alike.

    Example: sparseformers profile sf_base_augreg

    Example: sparseformers profile runs/first --backend eager compile packed --batch 1 16
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|NAME")]
    """A run folder, a model file, or a named size: sf_base_augreg, sf_large_augreg, sf_base_clip, sf_large_clip, sf_v1_tiny,
    sf_v1_small, sf_v1_base (v1 has no teacher)."""
    backend: tuple[Literal["eager", "compile", "packed", "onnxruntime", "openvino"], ...] = ("eager",)
    """Ways to run both. eager: PyTorch as it is. compile: torch.compile. packed: weights packed for oneDNN (CPU, fp32).
    onnxruntime, openvino: the files that export writes (CPU, fp32; extras 'export' and 'openvino')."""
    batch: tuple[int, ...] = (1, 16)
    """Batch sizes to time."""
    repeats: int = 10
    """Timed passes of each network at each batch size."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the matrix products, for both."""
    teacher: str | None = None
    """Teacher to load, if it is not where it was."""
    json: bool = False
    """Print the figures as JSON."""

    def run(self) -> None:
        from sparseformers.profiling.profile import profile

        console = console_for(as_json=self.json)
        report = profile(self.model, **options(self, without=("model", "json")))
        for line in report.remarks:
            say(console, line)
        if self.json:
            print_json(report.to_dict())
            return
        for table in report.tables():
            print_whole(table, console)
