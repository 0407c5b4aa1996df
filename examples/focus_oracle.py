"""What would better places for the RoIs be worth? An experiment: one student is told by its teacher where to look.

Two students of an inherited front are trained on the same views. The first keeps to the cells of its coarse grid. The second gets
RoIs that still tile the image, but are small where the teacher's class token attends and large elsewhere: an oracle, because it
asks the teacher's last third of blocks, at full resolution, before it looks. What it gains over the cells hints at what there is
to find for a student that has to look for itself; other places may be better still, so it is no bound.

    python examples/focus_oracle.py --teacher timm:vit_small_patch14_dinov2@FILE --data DIR/train --test DIR/test --samples 6000
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from sparseformers import rois as roi_arithmetic
from sparseformers.data import (
    ImageViews,
    SampleStream,
    batch_loader,
    evaluation_batches,
    find_images,
    images_on,
    training_view,
)
from sparseformers.inheritance import inherit
from sparseformers.model import SparseFormer
from sparseformers.model.block import TransformerBlock
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.train.objective import cosine_distance
from sparseformers.train.optimiser import build_optimiser, rate_factor, set_rates


@dataclass(frozen=True)
class Settings:
    """Where the images are, and how long to train."""

    teacher: str
    """As for bootstrap; its name says which."""
    data: tuple[Path, ...]
    """Folders to learn from."""
    test: Path
    """Folder to measure on."""
    samples: int = 6000
    """Images to see."""
    image_size: int = 112
    """Side in pixels."""
    tokens: int = 16
    """Latent tokens, a square number."""
    share: float = 0.5
    """Of the density of RoIs that follows the attention; the rest is even."""
    batch_size: int = 32
    """Images per step."""
    seed: int = 0
    """Of the views."""


class Attention:
    """The attention of the class token over the patches, mean of the heads of the teacher's last third of blocks."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.first = teacher.depth - teacher.depth // 3
        self.blocks = []
        for index in range(self.first, teacher.depth):
            block = TransformerBlock(teacher.anatomy.block)
            block.load_state_dict(teacher.block_state(index))
            self.blocks.append(block)

    def __call__(self, images: Tensor) -> Tensor:
        """Images B x 3 x H x W in [0, 1] -> B x rows x columns, of sum 1."""
        inputs = self.teacher.block_inputs(images)[self.first : self.teacher.depth]
        total = torch.zeros(())
        for block, tokens in zip(self.blocks, inputs, strict=True):
            attention = block.attn
            queries, keys, _ = attention.qkv(block.norm1(tokens)).unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
            weights = (queries[:, :, :1] @ keys.transpose(-1, -2) / math.sqrt(keys.shape[-1])).softmax(dim=-1)
            total = total + weights[:, :, 0, self.teacher.anatomy.prefix_tokens :].mean(dim=1)
        patch = self.teacher.patch_size
        grid = total.float().unflatten(-1, (images.shape[-2] // patch, images.shape[-1] // patch))
        return grid / grid.sum(dim=(1, 2), keepdim=True)


def warped_cells(attention: Tensor, side: int, share: float) -> Tensor:
    """Cells side x side that tile the image, their borders at the quantiles of attention's marginals: B x side² x 4."""
    across, down = (_quantiles(attention.sum(dim=axis), side, share) for axis in (1, 2))  # B x (side+1) each
    left, right = (part[:, None].expand(-1, side, -1) for part in (across[:, :-1], across[:, 1:]))
    top, bottom = (part[:, :, None].expand(-1, -1, side) for part in (down[:, :-1], down[:, 1:]))
    return torch.stack([left, top, right, bottom], dim=-1).flatten(1, 2)


def _quantiles(marginal: Tensor, parts: int, share: float) -> Tensor:
    """Where a density B x bins on [0, 1], mixed with an even one, reaches 0, 1/parts, ..., 1: B x (parts+1)."""
    bins = marginal.shape[1]
    mass = F.pad((share * marginal + (1 - share) / bins).cumsum(dim=1), (1, 0))
    mass = mass / mass[:, -1:]
    wanted = torch.linspace(0, 1, parts + 1).expand(len(mass), -1)
    upper = torch.searchsorted(mass.contiguous(), wanted.contiguous()).clamp(1, bins)
    below, above = mass.gather(1, upper - 1), mass.gather(1, upper)
    return (upper - 1 + (wanted - below) / (above - below)) / bins


def embed(student: SparseFormer, images: Tensor, rois: Tensor) -> Tensor:
    """The embedding of a student with a grid front whose tokens stand for other RoIs B x N x 4 than its cells."""
    front = student.focusing
    patches = front.sample_patches(student.normalise(images), rois)
    latent = front.pre_norm(front.embedding(patches, rois))
    return student.cortex(front.prefix(latent), rois).embedding


def main(settings: Settings) -> None:
    """Trains both students side by side, and prints what each comes to."""
    teacher = load_teacher(settings.teacher, image_size=settings.image_size, crop=0.875)
    attention, side = Attention(teacher), math.isqrt(settings.tokens)
    students = {name: inherit(teacher, tokens=settings.tokens).student for name in ("cells", "oracle")}
    optimisers = {
        name: build_optimiser(student, lr=3e-5, lr_ratios={"tuned": 1.0}, weight_decay=0.05) for name, student in students.items()
    }

    def rois_of(name: str, images: Tensor) -> Tensor:
        if name == "cells":
            return roi_arithmetic.cells(settings.tokens).expand(len(images), -1, -1)
        return warped_cells(attention(images), side, settings.share)

    paths = find_images(settings.data)
    views = ImageViews(paths, training_view(teacher.preprocessing.size, "default"), seed=settings.seed)
    stream = SampleStream(len(paths), batch_size=settings.batch_size, seed=settings.seed, total=settings.samples)
    for step, batch in enumerate(batch_loader(views, stream, workers=1)):
        images = images_on("cpu", batch.images)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            target = teacher(images).embedding
            rois = {name: rois_of(name, images) for name in students}
        for name, student in students.items():
            set_rates(optimisers[name], rate_factor((step + 0.5) / len(stream), 0.05))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = cosine_distance(embed(student, images, rois[name]), target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimisers[name].step()
            optimisers[name].zero_grad(set_to_none=True)
    _judge(settings, teacher, students, attention, rois_of)


@torch.no_grad()
def _judge(settings, teacher, students, attention, rois_of) -> None:  # type: ignore[no-untyped-def]
    """Centred cosine to the teacher, on all test images and on the quarter where attention is most concentrated."""
    found: dict[str, list[Tensor]] = {name: [] for name in ("teacher", "spread", *students)}
    for batch in evaluation_batches(find_images([settings.test]), teacher.preprocessing, batch_size=64, workers=1):
        images = images_on("cpu", batch.images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found["teacher"].append(teacher(images).embedding.float())
            weights = attention(images).flatten(1)
            found["spread"].append(-(weights * weights.clamp(min=1e-9).log()).sum(dim=1))
            for name, student in students.items():
                found[name].append(embed(student.eval(), images, rois_of(name, images)).float())
    answers = {name: torch.cat(parts) for name, parts in found.items()}
    mean = answers["teacher"].mean(dim=0)
    small = answers["spread"] <= answers["spread"].quantile(0.25)
    classifier = teacher.head_state().get("classifier.weight")
    for name in students:
        cosine = F.cosine_similarity(answers[name] - mean, answers["teacher"] - mean)
        line = f"{name:7s} centred cosine {cosine.mean():.4f}, where attention is most concentrated {cosine[small].mean():.4f}"
        if classifier is not None:
            bias = teacher.head_state()["classifier.bias"]
            same = F.linear(answers[name], classifier, bias).argmax(1) == F.linear(answers["teacher"], classifier, bias).argmax(1)
            line += f"; says the teacher's class {same.float().mean():.1%}, there {same[small].float().mean():.1%}"
        print(line)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
