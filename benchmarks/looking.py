"""Which cells a mixed-resolution front should split: rows that differ in the map alone, trained and judged alike.

One view of each image, so the teacher answers once; its embeddings and attention maps are shared by all rows and seeds.
Legend: M images, D width of the embedding, h x w the teacher's patches.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.baselines import TokenMergingTeacher, merged_for_budget, merging_multiply_adds
from benchmarks.short_training import BATCH, check_rows, train, views_of
from benchmarks.text_table import TextTable
from sparseformers.config import MixedResolutionConfig
from sparseformers.evaluation import measure_alignment
from sparseformers.evaluation.alignment import centred_cosine
from sparseformers.evaluation.attention import AttendingTeacher, TeacherAttention, measure_map
from sparseformers.evaluation.cost import measure_cost
from sparseformers.inheritance import inherit
from sparseformers.inheritance.fitted import fit_map
from sparseformers.inheritance.inheriting import FrontKind
from sparseformers.model import FrontOutput, SparseFormer
from sparseformers.model.mixed_resolution import MixedResolutionFront
from sparseformers.model.selector import shares_on
from sparseformers.settings import AtLeast, Between, check_bounds
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.train.objective import Objective, Targets, Whitening

MERGING = "tome"
MAPS = {
    "grid": "cells of equal size, by the grid front",
    "learnt": "the student's own map",
    "mean": "one map for all images, the mean of those learnt from",
    "random": "a random map for each image, another one each time",
    "other": "the student's map of another image",
    "oracle": "the teacher's own attention",
    MERGING: "nothing: the teacher, merging tokens in its first blocks, untrained",
}
"""The rows, and what each of them splits by."""


@dataclass(frozen=True, kw_only=True)
class LookingConfig:
    """The conditions that all rows share."""

    data: Path
    """Folder of images to learn from."""
    eval_data: tuple[Path, ...]
    """Folders of other images to judge by, each for itself: what is common to a folder's images is taken off there."""
    out: Path
    """Folder to keep the teacher's answers in; what is there is not computed again."""
    teacher: str = "bundled"
    """As for bootstrap."""
    image_size: int = 280
    """Side in pixels."""
    tokens: Annotated[int, AtLeast(1)] = 64
    """Latent tokens N."""
    samples: Annotated[int, AtLeast(0)] = 960
    """Images that each row learns from; 0 judges untrained students alone."""
    train_images: Annotated[int, AtLeast(2)] = 1200
    """Most different images among them."""
    eval_images: Annotated[int, AtLeast(20)] = 300
    """Most images to judge by, of each folder."""
    seeds: Annotated[int, AtLeast(1)] = 2
    """How often each row is trained, with the seeds 0, 1, ..."""
    rows: str = ",".join(MAPS)
    """Which maps to split by, separated by commas."""
    start: Annotated[tuple[int, int] | None, AtLeast(1)] = None
    """Rows and columns of the cells that splitting starts from; this and those below as the front has them, if not given."""
    levels: Annotated[int | None, AtLeast(1)] = None
    """How often a cell can be split."""
    glance: Annotated[int | None, AtLeast(0)] = None
    """The level of the cells that the map is told from."""
    channels: Annotated[int | None, AtLeast(1)] = None
    """Channels of the selector."""
    sharpness: Annotated[float | None, Between(0, 1)] = None
    """Cells are split by their share of the map over their area to this power."""
    perturbation: Annotated[float | None, Between(0, 1)] = None
    """Share of the images that are split by a perturbed map in training."""
    target: Literal["last-third", "last", "rollout"] = "last-third"
    """The map that the teacher gives: its attention in the last third of the blocks, in the last one, or through all of them."""
    selector: Literal["both", "first", "along"] = "both"
    """When the selector of the student's own map learns: before the first step, along with the student, or both."""

    def __post_init__(self) -> None:
        check_bounds(self)
        check_rows(self.names, MAPS)

    @property
    def names(self) -> list[str]:
        return self.rows.split(",")

    @property
    def changes(self) -> dict[str, Any]:
        """What the mixed-resolution front has otherwise."""
        named = ("start", "levels", "glance", "channels", "sharpness", "perturbation")
        return {name: value for name in named if (value := getattr(self, name)) is not None}


class Answers(NamedTuple):
    """Images as the teacher sees them, with its answers."""

    images: Tensor  # M x 3 x H x W bytes
    embedding: Tensor  # M x D float32
    attention_map: Tensor  # M x h x w float32


@dataclass(frozen=True)
class RowFigures:
    """A row as judged with one seed, untrained and trained."""

    row: str
    seed: int
    samples: int
    judged_by: str  # the name of the folder
    centred_cosine: float
    concentrated: float  # the same on the quarter of the images on which the teacher's attention is most concentrated
    neighbours: float  # share of the teacher's 10 nearest that the student finds, too
    divergence: float | None  # of its map from the teacher's
    overlap: float | None  # share of the heaviest third of the cells in both maps
    multiply_adds: int


class GivenMap(nn.Module):
    """A mixed-resolution front that splits by a map from elsewhere, which ``shares`` holds for the next batch."""

    def __init__(self, front: MixedResolutionFront) -> None:
        super().__init__()
        self.front = front
        self.shares: Tensor | None = None

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """As the front."""
        assert self.shares is not None
        patches = self.front.patches(images.float())
        leaves = self.front.leaves(self.front.perturbed(self.shares) if self.training else self.shares, tokens)
        return FrontOutput(*self.front.read(patches, leaves), self.shares)


def compare_maps(config: LookingConfig, console: Console) -> list[RowFigures]:
    """Trains and judges all rows with all seeds."""
    teacher = load_teacher(config.teacher, image_size=config.image_size)
    kept = config.out if config.target == "last-third" else config.out / config.target
    to_learn = answers(teacher, config.data, config.train_images, kept / "train.safetensors", config.target)
    to_judge = {
        folder.name: answers(teacher, folder, config.eval_images, kept / f"eval-{folder.name}.safetensors", config.target)
        for folder in config.eval_data
    }
    figures: list[RowFigures] = []
    for seed in range(config.seeds):
        for row in config.names:
            figures += Row(config, teacher, row, seed, to_learn, to_judge).run()
            last = ", ".join(f"{each.judged_by} {each.centred_cosine:.3f}" for each in figures[-len(to_judge) :])
            console.print(f"{row}, seed {seed}: {last}", highlight=False)
    return figures


@torch.inference_mode()
def answers(teacher: Teacher, folder: Path, most: int, path: Path, target: str) -> Answers:
    """The teacher's answers on a random choice of the images, computed once."""
    if not path.is_file():
        attending, others, parts = AttendingTeacher(teacher).eval(), TeacherAttention(teacher), []
        for views in views_of(teacher, folder, most):
            answer = attending(views)
            attention = answer.attention_map if target == "last-third" else getattr(others(views), target)
            parts.append(((255 * views).round().byte(), answer.embedding, attention))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(zip(Answers._fields, map(torch.cat, zip(*parts, strict=True)), strict=True)), path)
    return Answers(**{name: value[:most] for name, value in load_file(path).items()})


class Row:
    """One row with one seed."""

    def __init__(
        self, config: LookingConfig, teacher: Teacher, row: str, seed: int, to_learn: Answers, to_judge: dict[str, Answers]
    ) -> None:
        self.config, self.row, self.seed, self.to_learn, self.to_judge = config, row, seed, to_learn, to_judge
        front: FrontKind = "grid" if row in ("grid", MERGING) else "mixed"
        self.student = inherit(teacher, front=front, tokens=config.tokens, seed=seed).student
        own = self.student.config.focusing
        if isinstance(own, MixedResolutionConfig) and config.changes:
            self.student = inherit(
                teacher, front=dataclasses.replace(own, tokens=config.tokens, **config.changes), seed=seed
            ).student
        self.cost = measure_cost(self.student, teacher.preprocessing.size).multiply_adds
        self.merging: nn.Module | None = None
        if row == MERGING:
            early = merged_for_budget(teacher, self.cost, schedule="early")
            self.merging, self.cost = (
                TokenMergingTeacher(teacher, early, proportional=False),
                merging_multiply_adds(teacher, early),
            )
        self.given: GivenMap | None = None
        if isinstance(self.student.focusing, MixedResolutionFront):
            self._prepare(self.student.focusing)

    def _prepare(self, front: MixedResolutionFront) -> None:
        if self.row in ("learnt", "other") and self.config.selector != "along":
            batches = zip(self.to_learn.images.split(BATCH), self.to_learn.attention_map.split(BATCH), strict=True)
            fit_map(self.student, ((images.float() / 255, maps) for images, maps in batches), seed=self.seed)
        if self.row != "learnt":
            self.mean = shares_on(self.to_learn.attention_map.mean(dim=0, keepdim=True), front.tree.map_grid)
            self.given = GivenMap(front)

    def run(self) -> list[RowFigures]:
        """Judges, trains and judges again."""
        found = [self.judge(name, 0) for name in self.to_judge]
        if self.config.samples and self.row != MERGING:
            self.train()
            found += [self.judge(name, self.config.samples) for name in self.to_judge]
        return found

    def __call__(self, images: Tensor, attention: Tensor) -> SparseFormer:
        """The student, ready for these images B x 3 x H x W in [0, 1] with the teacher's attention B x h x w."""
        if self.given is not None:
            front = self.given.front
            flat = torch.ones(len(images), *front.tree.map_grid)
            with torch.no_grad():
                self.given.shares = {
                    "mean": lambda: self.mean.expand_as(flat),
                    "random": flat.exponential_,
                    "oracle": lambda: shares_on(attention, front.tree.map_grid),
                    "other": lambda: front.shares(front.patches(self.student.normalise(images))).roll(1, dims=0),
                }[self.row]()
            self.student.focusing = self.given
        return self.student

    def train(self) -> None:
        """One view of each image, the default recipe's loss and rates; the schedule ends at the last step."""
        front = self.given.front if self.given is not None else self.student.focusing
        self.student.focusing = front
        objective = Objective(whitening=Whitening.of(self.to_learn.embedding))
        images, embedding, attention = self.to_learn

        def loss_of(rows: Tensor) -> Tensor:
            pixels = images[rows].float() / 255
            student = self(pixels, attention[rows]).train()
            maps = attention[rows] if self.row == "learnt" and self.config.selector != "first" else None
            return objective(student(pixels), Targets(embedding[rows], attention_map=maps))

        train(self.student, loss_of, images=len(images), samples=self.config.samples, seed=self.seed)

    @torch.inference_mode()
    def judge(self, name: str, samples: int) -> RowFigures:
        """The student's distance from the teacher on a folder's images, and where the teacher's attention is concentrated."""
        images, embedding, attention = self.to_judge[name]
        outputs = []
        for part, maps in zip(images.split(BATCH), attention.split(BATCH), strict=True):
            pixels = part.float() / 255
            network = self(pixels, maps) if self.merging is None else self.merging
            outputs.append(network.eval()(pixels))
        ours = torch.cat([output.embedding for output in outputs])
        cosine = centred_cosine(ours, embedding)
        shares = attention.flatten(1)
        entropy = -(shares * shares.clamp_min(1e-12).log()).sum(dim=1)
        agreement = None
        if self.row == "learnt":
            agreement = measure_map(torch.cat([output.attention_map for output in outputs]), attention)
        return RowFigures(
            row=self.row,
            seed=self.seed,
            samples=samples,
            judged_by=name,
            centred_cosine=cosine.mean().item(),
            concentrated=cosine[entropy.argsort()[: len(images) // 4]].mean().item(),
            neighbours=measure_alignment(ours, embedding).neighbour_agreement,
            divergence=None if agreement is None else agreement.divergence,
            overlap=None if agreement is None else agreement.overlap,
            multiply_adds=self.cost,
        )


def looking_table(config: LookingConfig, figures: list[RowFigures]) -> TextTable:
    """A line for each row and folder, means over the seeds; untrained beside trained."""
    lines = []
    for row, name in itertools.product(config.names, (folder.name for folder in config.eval_data)):
        cells = [MAPS[row], name]
        of_row = [each for each in figures if (each.row, each.judged_by) == (row, name)]
        for samples in sorted({each.samples for each in figures}):
            for figure in ("centred_cosine", "concentrated"):
                values = torch.tensor([getattr(each, figure) for each in of_row if each.samples == samples])
                spread = f" ± {values.std():.3f}" if samples and len(values) > 1 else ""
                cells.append(f"{values.mean():.3f}{spread}" if len(values) else "")
        found = torch.tensor([each.neighbours for each in of_row if each.samples == max(of.samples for of in of_row)])
        lines.append((*cells, f"{found.mean():.1%}"))
    lengths = ["untrained", *([f"{config.samples:,} images"] if config.samples else [])]
    columns = [f"{length}, {what}" for length in lengths for what in ("all", "concentrated quarter")]
    title = f"Centred cosine, {config.tokens} tokens, {config.image_size} pixels"
    return TextTable(title, ("split by", "judged by", *columns, "neighbours found"), tuple(lines))
