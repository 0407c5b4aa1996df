"""What a training step is made of: its parts alone, their sum, the whole step, and how far they are from the machine's own rate.

Parts and whole take turns in one process on the same random images. The ratio is that of the whole step to teacher forward and
student forward and backward, the median over the turns: what lies above 1 is the optimiser and all else that a step does. On a
processor the time is that of this process, so that other programs do not count; on an accelerator it is the clock's. Reading
images is measured beside it, as one process does it without waiting.

Example: python examples/step_parts.py --teacher timm:vit_small_patch14_dinov2@teacher.safetensors --data caltech101/train
--crop 0.875 --image-size 112 --tokens 16
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from accelerate import Accelerator
from torch.profiler import ProfilerActivity, profile

from sparseformers.data import SampleStream, training_loader
from sparseformers.evaluation import measure_training_cost
from sparseformers.modes import autocast_dtype, gradient_scaler
from sparseformers.train import BootstrapConfig
from sparseformers.train.objective import Objective
from sparseformers.train.optimiser import build_optimiser
from sparseformers.train.planning.rehearsal import random_images
from sparseformers.train.planning.step_parts import StepInParts, seconds_of
from sparseformers.train.setup import Parts, gather_parts
from sparseformers.train.step import TrainingStep

PRODUCT = (2048, 384, 1536)
"""Rows, inner size and columns of the matrix product whose rate the parts are compared with: a layer of a small transformer."""
PRODUCTS = 16
"""So many of them are timed at once."""
LABELS = {
    "teacher": "teacher forward",
    "forward": "student forward",
    "backward": "student backward",
    "optimiser": "norms, clipping, optimiser",
    "whole": "whole step",
    "reading": "reading and augmenting, in other processes",
}
"""Of the rows of the table."""


@dataclass(frozen=True)
class Options:
    """Take a training step apart."""

    teacher: str
    """As for sparseformers bootstrap."""
    data: Path
    """Folder with images, to time reading by; steps learn from noise."""
    front: Literal["grid", "focusing"] = "grid"
    """As for sparseformers bootstrap."""
    crop: float = 0.875
    """Share of the shorter side that evaluation keeps."""
    image_size: int = 112
    """Side in pixels."""
    tokens: int = 16
    """Latent tokens."""
    batch_size: int = 32
    """Images per step."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """As for sparseformers bootstrap."""
    compile: bool = False
    """Compile teacher and student."""
    device: str = "cpu"
    """Such as cpu or cuda."""
    threads: int = 1
    """Of the processor."""
    rounds: int = 9
    """Turns, after two that warm up."""
    trace: Path | None = None
    """File to write a step's operators to, for chrome://tracing; those that take most are printed, too."""


def make_step(options: Options) -> TrainingStep:
    """The step of a training with these options."""
    settings = BootstrapConfig.of(
        teacher=options.teacher,
        data=(options.data,),
        front=options.front,
        crop=options.crop,
        image_size=options.image_size,
        tokens=options.tokens,
        batch_size=options.batch_size,
        precision=options.precision,
        compile=options.compile,
    )
    parts = gather_parts(settings, device=torch.device(options.device))
    student = parts.inheritance.student
    learning = settings.optimisation
    optimiser = build_optimiser(student, lr=learning.lr, lr_ratios=settings.lr_ratios, weight_decay=learning.weight_decay)
    accelerator = Accelerator(cpu=parts.device.type == "cpu", mixed_precision="no")
    scaler = gradient_scaler(parts.precision, parts.device)
    return TrainingStep(parts, student, optimiser, accelerator, objective=Objective(), scaler=scaler)


def products(parts: Parts) -> Callable[[], None]:
    """The matrix products that tell the machine's rate, in the precision of the training."""
    dtype = autocast_dtype(parts.precision) or torch.float32
    rows, inner, columns = PRODUCT
    left = torch.rand(rows, inner, device=parts.device, dtype=dtype)
    right = torch.rand(columns, inner, device=parts.device, dtype=dtype)

    def multiply() -> None:
        for _ in range(PRODUCTS):
            torch.nn.functional.linear(left, right)

    return multiply


def reading(parts: Parts) -> Iterator[object]:
    """Batches of views, made by this process alone."""
    stream = SampleStream(parts.order, batch_size=parts.settings.optimisation.batch_size, seed=0, total=None)
    return iter(training_loader(parts.training_views(), stream, workers=0))


def take_turns(step: TrainingStep, rounds: int) -> dict[str, list[float]]:
    """Seconds of the parts, the whole step, the products and the reading of a batch, by name, for each turn."""
    parts, batches = step.parts, reading(step.parts)
    taken = StepInParts(step, random_images(parts))
    works: dict[str, Callable[[], object]] = {**taken.parts, "whole": taken.whole}
    works |= {"products": products(parts), "reading": lambda: next(batches)}
    clock = time.process_time if parts.device.type == "cpu" else time.perf_counter
    turns = [{name: seconds_of(work, parts.device, clock=clock) for name, work in works.items()} for _ in range(2 + rounds)]
    return {name: [turn[name] for turn in turns[2:]] for name in works}


def print_table(step: TrainingStep, seconds: dict[str, list[float]]) -> None:
    """The parts with what they compute, and the whole step beside their sum."""
    parts = step.parts
    images = parts.settings.optimisation.batch_size
    cost = measure_training_cost(parts.inheritance.student, parts.teacher, parts.size)
    computed = {"teacher": cost.teacher_forward, "forward": cost.student_forward, "backward": cost.student_backward}
    computed["whole"] = cost.total
    rows, inner, columns = PRODUCT
    sums = [sum(turn) for turn in zip(*(seconds[name] for name in ("teacher", "forward", "backward")), strict=True)]
    ratios = [whole / alone for whole, alone in zip(seconds["whole"], sums, strict=True)]
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    rate = 2 * PRODUCTS * rows * inner * columns / middle["products"] / 1e9
    print("| | ms | share of the sum | GFLOP/s | of a product's |\n|---|---|---|---|---|")
    for name, label in LABELS.items():
        reached = 2 * images * computed[name] / middle[name] / 1e9 if name in computed else None
        speed = "| |" if reached is None else f"| {reached:.0f} | {reached / rate:.0%}"
        print(f"| {label} | {1e3 * middle[name]:.1f} | {middle[name] / statistics.median(sums):.1%} {speed} |")
    print(f"\n{parts.device}, {parts.precision}, batch {images}: {images / middle['whole']:.1f} images a second;", end=" ")
    print(f"a product of {rows} x {inner} x {columns}: {rate:.0f} GFLOP/s")
    low, high = min(ratios), max(ratios)
    print(f"whole step to teacher + student forward and backward: {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})")


def write_trace(step: TrainingStep, path: Path) -> None:
    """Operators of one step, to a file and by their own time."""
    taken = StepInParts(step, random_images(step.parts))
    on = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if step.parts.device.type == "cuda" else [])
    with profile(activities=on) as recorded:
        taken.whole()
    recorded.export_chrome_trace(str(path))
    by = "self_cpu_time_total" if step.parts.device.type == "cpu" else "self_device_time_total"
    print(recorded.key_averages().table(sort_by=by, row_limit=20, max_name_column_width=60))


def main(options: Options) -> None:
    """Lets the parts take turns and prints the table."""
    torch.set_num_threads(options.threads)
    step = make_step(options)
    print_table(step, take_turns(step, options.rounds))
    if options.trace is not None:
        write_trace(step, options.trace)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
