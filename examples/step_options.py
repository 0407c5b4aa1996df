"""What a step costs in each precision, with gradient checkpointing, and compiled: time and kept memory.

All settings take turns in one process on the same random images, and the least time of a step counts, as the processor's time of
this process: on a machine that others use, too, the clock would measure them. What the forward pass keeps for the backward pass
is counted by autograd's own hooks, and is nothing for a compiled network, which they do not see into.

Example: python examples/step_options.py --teacher timm:vit_small_patch14_dinov2@teacher.safetensors --data caltech101/train
--crop 0.875 --image-size 112 --tokens 16
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from sparseformers.data import Batch
from sparseformers.modes import gradient_scaler
from sparseformers.processes import make_accelerator
from sparseformers.train import BootstrapConfig
from sparseformers.train.objective import Objective, alignment_loss
from sparseformers.train.optimiser import build_optimiser
from sparseformers.train.setup import gather_parts
from sparseformers.train.step import TrainingStep

ROWS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "fp16 with scaler": {"precision": "fp16"},
    "bf16, gradient checkpointing": {"precision": "bf16", "gradient_checkpointing": True},
    "bf16, compiled": {"precision": "bf16", "compile": True},
}
"""The settings that take turns; the first one is what the others are compared with."""


@dataclass(frozen=True)
class Options:
    """Compare what steps cost."""

    teacher: str
    """As for sparseformers bootstrap."""
    data: Path
    """Folder with images; they are only counted."""
    crop: float = 0.875
    """Share of the shorter side that evaluation keeps."""
    image_size: int = 112
    """Side in pixels."""
    tokens: int = 16
    """Latent tokens."""
    batch_size: int = 32
    """Images per step."""
    rounds: int = 5
    """Steps of each setting, after a first one that does not count."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which settings."""


def make_step(options: Options, changes: Mapping[str, Any]) -> TrainingStep:
    """The step of a training with some settings."""
    base = BootstrapConfig.of(
        teacher=options.teacher,
        data=(options.data,),
        crop=options.crop,
        image_size=options.image_size,
        tokens=options.tokens,
        batch_size=options.batch_size,
    )
    settings = base.with_(**changes)
    accelerator = make_accelerator()
    parts = gather_parts(settings, device=accelerator.device)
    student = parts.inheritance.student
    learning = settings.optimisation
    optimiser = build_optimiser(student, lr=learning.lr, lr_ratios=settings.lr_ratios, weight_decay=learning.weight_decay)
    scaler = gradient_scaler(parts.precision, parts.device)
    return TrainingStep(parts, student, optimiser, accelerator, objective=Objective(), scaler=scaler)


def kept_bytes(step: TrainingStep, images: Tensor) -> int:
    """Bytes that the forward pass keeps for the backward pass, weights counted in once."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alignment_loss(step.model, step.parts.teacher, images, step.autocast)
    weights = {parameter.untyped_storage().data_ptr() for parameter in step.model.parameters()}
    return sum(size for place, size in sizes.items() if place not in weights)


def main(options: Options) -> None:
    """Lets the settings take turns and prints the table."""
    torch.set_num_threads(1)
    steps = {name: make_step(options, ROWS[name]) for name in options.rows}
    side = options.image_size
    images = torch.rand(options.batch_size, 3, side, side, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, torch.arange(len(images)), ())
    first: dict[str, float] = {}
    least: dict[str, float] = {}
    for number in range(1 + options.rounds):
        for name, step in steps.items():
            start = time.process_time()
            step(batch, rate=1.0, samples=0)
            spent = time.process_time() - start
            if number == 0:
                first[name] = spent
            else:
                least[name] = min(spent, least.get(name, spent))
    print("| | seconds a step | speed | first step | kept for the backward pass |\n|---|---|---|---|---|")
    reference = least[options.rows[0]]
    for name, step in steps.items():
        kept = "-" if step.settings.optimisation.compile else f"{kept_bytes(step, images) / 2**20:.0f} MiB"
        print(f"| {name} | {least[name]:.2f} | {reference / least[name]:.2f} | {first[name]:.1f} s | {kept} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
