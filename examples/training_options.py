"""What precision, gradient checkpointing, compiling and averaging change: speed, memory, and how near the student comes.

Each row is a training in a process of its own, one after the other, so that peak memory is its own; images a second are the
median of the lines of ``metrics.jsonl`` but the first two, in which a compiled network is made.

Example: python examples/training_options.py --teacher timm:vit_small_patch14_dinov2@teacher.safetensors --data caltech101/train
--crop 0.875 --image-size 112 --tokens 16 --samples 1920 --out runs/options
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

OPTIONS: dict[str, tuple[str, ...]] = {
    "fp32": ("--precision", "fp32"),
    "bf16": ("--precision", "bf16"),
    "bf16, gradient checkpointing": ("--precision", "bf16", "--gradient-checkpointing"),
    "bf16, compiled": ("--precision", "bf16", "--compile"),
    "fp16": ("--precision", "fp16"),
}
"""The rows; the first one is what the others are compared with."""


@dataclass(frozen=True)
class Options:
    """Compare options of the training."""

    teacher: str
    """As for sparseformers bootstrap."""
    data: Path
    """Folder with images."""
    out: Path
    """Folder to make, with a run for each row and seed."""
    crop: float = 0.875
    """Share of the shorter side that evaluation keeps."""
    image_size: int = 112
    """Side in pixels."""
    tokens: int = 16
    """Latent tokens."""
    samples: int = 1920
    """Length of each training."""
    seeds: int = 1
    """Trainings of each row."""
    rows: tuple[str, ...] = tuple(OPTIONS)
    """Which rows."""


@dataclass(frozen=True)
class Row:
    """What came of one training."""

    images_per_second: float
    memory: float
    start: float
    cosine: float
    centred: float


def train(options: Options, name: str, seed: int) -> Row:
    """Runs one training in a process of its own, unless it is there."""
    out = options.out / f"{''.join(filter(str.isalnum, name))}-{seed}"
    if not (out / "summary.json").is_file():
        command = [sys.executable, "-m", "sparseformers", "bootstrap", "--teacher", options.teacher, "--data", str(options.data)]
        command += ["--crop", str(options.crop), "--image-size", str(options.image_size), "--tokens", str(options.tokens)]
        command += ["--samples", str(options.samples), "--seed", str(seed), "--data-seed", "0", "--log-every", "5"]
        command += ["--evaluations", "1", "--holdout-limit", "250", "--workers", "0", "--trackers", "none", "--overwrite"]
        done = subprocess.run(
            [*command, *OPTIONS[name], "--json", "--out", str(out)], stdout=subprocess.PIPE, text=True, check=True
        )
        (out / "summary.json").write_text(done.stdout)
    summary = json.loads((out / "summary.json").read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    rates = [line["images_per_second"] for line in steps]
    return Row(
        images_per_second=statistics.median(rates[2:]),
        memory=summary["peak_memory_gib"],
        start=max(0.0, steps[0]["seconds"] - steps[0]["samples"] / statistics.median(rates[2:])),
        cosine=summary["alignment"]["cosine_mean"],
        centred=summary["alignment"]["centred_cosine"],
    )


def main(options: Options) -> None:
    """Trains the rows and prints the table."""
    columns = ("images a second", "of the first", "peak memory", "before the first step", "cosine", "centred cosine")
    print(f"| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    first = 0.0
    for name in options.rows:
        seeds = [train(options, name, seed) for seed in range(options.seeds)]
        rate = statistics.mean(row.images_per_second for row in seeds)
        first = first or rate
        figures = (
            f"{rate:.1f}",
            f"{rate / first:.2f}",
            f"{statistics.mean(row.memory for row in seeds):.2f} GiB",
            f"{statistics.mean(row.start for row in seeds):.0f} s",
            f"{statistics.mean(row.cosine for row in seeds):.4f}",
            f"{statistics.mean(row.centred for row in seeds):.4f}",
        )
        print(f"| {name} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
