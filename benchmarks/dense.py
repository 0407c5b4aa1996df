"""What a read-out brings: students that learn the teacher's feature map with and without one, and one that does not learn it.

One view of each image, so the teacher answers once; its answers are shared by all rows and seeds.
Legend: M images, D width, h x w the teacher's patches.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.short_training import BATCH, check_rows, train, views_of
from benchmarks.text_table import TextTable
from sparseformers.evaluation.alignment import centred_cosine
from sparseformers.evaluation.cost import multiply_adds
from sparseformers.evaluation.dense import dense_cosine
from sparseformers.inheritance import inherit
from sparseformers.inheritance.inheriting import FrontKind
from sparseformers.model import SparseFormer, WithTokens
from sparseformers.settings import AtLeast, check_bounds
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.train.objective import Objective, Targets, Whitening
from sparseformers.train.settings import READ_OUT_RATE

ROWS = {
    "embedding": "embedding alone learnt, tokens on the grid",
    "spread": "map learnt, tokens on the grid",
    "read-out": "map learnt, by the read-out",
    "grids": "the same, half of the batches on a coarser grid",
}
MEASURES = {
    "dense_cosine": "places",
    "dense_cosine_p05": "their 5th percentile",
    "finer_cosine": "a finer grid",
    "coarser_cosine": "a coarser grid",
    "centred_cosine": "embedding",
}
"""Figures of the table, and what they are called there."""
COARSER = (0.5, 0.75)  # rows and columns of the grids that the last row learns, as shares of the teacher's
FINER_IMAGES = 100  # most images that the teacher sees at a larger size


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """The conditions that all rows share."""

    data: Path
    """Folder of images to learn from."""
    eval_data: Path
    """Folder of other images to judge by."""
    out: Path
    """Folder to keep the teacher's answers in, and the students; answers that are there are not computed again."""
    teacher: str = "bundled"
    """As for bootstrap."""
    image_size: int = 224
    """Side in pixels."""
    front: FrontKind = "grid"
    """As for bootstrap."""
    tokens: Annotated[int, AtLeast(1)] = 64
    """Latent tokens N."""
    samples: Annotated[int, AtLeast(1)] = 1600
    """Images that each row learns from."""
    train_images: Annotated[int, AtLeast(2)] = 1600
    """Most different images among them."""
    eval_images: Annotated[int, AtLeast(20)] = 400
    """Most images to judge by."""
    seeds: Annotated[int, AtLeast(1)] = 1
    """How often each row is trained, with the seeds 0, 1, ..."""
    first_seed: int = 0
    """The first of them."""
    rows: str = ",".join(ROWS)
    """Rows, separated by commas."""

    def __post_init__(self) -> None:
        check_bounds(self)
        check_rows(self.names, ROWS)

    @property
    def names(self) -> list[str]:
        return self.rows.split(",")


class Answers(NamedTuple):
    """Images as the teacher sees them, with its answers."""

    images: Tensor  # M x 3 x H x W bytes
    embedding: Tensor  # M x D float32
    tokens: Tensor  # M x D x h x w float16


@dataclass(frozen=True)
class RowFigures:
    """A row as judged with one seed."""

    row: str
    seed: int
    samples: int
    dense_cosine: float  # mean over places
    dense_cosine_p05: float  # 5th percentile over places
    finer_cosine: float  # mean over places of a grid of half as many rows and columns again, by the teacher on larger images
    coarser_cosine: float  # mean over places of a grid of half the rows and columns, by means of the teacher's map
    centred_cosine: float  # of embeddings
    multiply_adds: int  # of embedding and map together


def compare_maps_of_features(config: DenseConfig, console: Console) -> list[RowFigures]:
    """Trains and judges all rows with all seeds."""
    teacher = load_teacher(config.teacher, image_size=config.image_size)
    to_learn = answers(teacher, config.data, config.train_images, config.out / "train.safetensors")
    to_judge = answers(teacher, config.eval_data, config.eval_images, config.out / "eval.safetensors")
    larger = load_teacher(config.teacher, image_size=3 * config.image_size // 2)
    finer = answers(larger, config.eval_data, FINER_IMAGES, config.out / "finer.safetensors")
    figures = []
    for seed in range(config.first_seed, config.first_seed + config.seeds):
        for row in config.names:
            layer = -1 if row in ("read-out", "grids") else None
            student = inherit(teacher, front=config.front, tokens=config.tokens, seed=seed, dense_layer=layer).student
            for samples in (0, config.samples):
                if samples:
                    learn(student, config, to_learn, dense=row != "embedding", coarser=row == "grids", seed=seed)
                figures.append(RowFigures(row, seed, samples, *judged(student, to_judge, finer)))
                last = figures[-1]
                told = f"maps {last.dense_cosine:.4f}, finer {last.finer_cosine:.4f}, coarser {last.coarser_cosine:.4f}, "
                told += f"embedding {last.centred_cosine:.4f}"
                console.print(f"{row}, seed {seed}, {samples:,} images: {told}", highlight=False)
            torch.save(student.state_dict(), config.out / f"{row}-{seed}.pt")
    return figures


@torch.inference_mode()
def answers(teacher: Teacher, folder: Path, most: int, path: Path) -> Answers:
    """The teacher's answers on a random choice of the images, computed once."""
    if not path.is_file():
        parts = [
            ((255 * views).round().byte(), *teacher.embedding_and_tokens(views)) for views in views_of(teacher, folder, most)
        ]
        images, embedding, tokens = (torch.cat(column) for column in zip(*parts, strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"images": images, "embedding": embedding, "tokens": tokens.half().contiguous()}, path)
    return Answers(**{name: value[:most] for name, value in load_file(path).items()})


def learn(student: SparseFormer, config: DenseConfig, known: Answers, *, dense: bool, coarser: bool, seed: int) -> None:
    """Aligns embeddings, and maps if asked to; half of the batches on a ``coarser`` grid, against means of the teacher's map."""
    objective = Objective(whitening=Whitening.of(known.embedding), centre=known.tokens[:400].float().mean(dim=(0, 2, 3)))
    own, generator = (known.tokens.shape[2], known.tokens.shape[3]), random.Random(seed)
    student.train()

    def loss_of(rows: Tensor) -> Tensor:
        share = generator.choice(COARSER) if coarser and generator.random() < 0.5 else 1
        grid = (round(share * own[0]), round(share * own[1]))
        wanted = known.tokens[rows] if grid == own else F.interpolate(known.tokens[rows].float(), grid, mode="area")
        output = student(known.images[rows].float() / 255, grid=grid if dense else None)
        return objective(output, Targets(known.embedding[rows], wanted))

    train(student, loss_of, images=len(known.images), samples=config.samples, seed=seed, lr_ratios={"read_out": READ_OUT_RATE})


@torch.inference_mode()
def judged(student: SparseFormer, known: Answers, finer: Answers) -> tuple[float, float, float, float, float, int]:
    """The figures of :class:`RowFigures`."""
    student.eval()
    own = (known.tokens.shape[2], known.tokens.shape[3])
    coarse = (own[0] // 2, own[1] // 2)
    halved = known._replace(tokens=F.interpolate(known.tokens.float(), coarse, mode="area"))
    places, lowest, embedding = on_grid(student, known)
    (on_finer, _, _), (on_coarser, _, _) = on_grid(student, finer), on_grid(student, halved)
    cost = multiply_adds(WithTokens(student, student.config.focusing.tokens, own), known.images[:1].float())
    return places, lowest, on_finer, on_coarser, embedding, cost


def on_grid(student: SparseFormer, known: Answers) -> tuple[float, float, float]:
    """Cosines on the grid of the known tokens: mean and 5th percentile over places, and the mean of embeddings."""
    grid, centre = (known.tokens.shape[2], known.tokens.shape[3]), known.tokens.float().mean(dim=(0, 2, 3))
    cosines, embeddings = [], []
    for images, tokens in zip(known.images.split(BATCH), known.tokens.split(BATCH), strict=True):
        output = student(images.float() / 255, grid=grid)
        assert output.dense is not None
        embeddings.append(output.embedding)
        cosines.append(dense_cosine(output.dense, tokens, centre).flatten())
    places = torch.cat(cosines)
    lowest = places.kthvalue(max(1, len(places) // 20)).values.item()
    return places.mean().item(), lowest, centred_cosine(torch.cat(embeddings), known.embedding).mean().item()


def dense_table(config: DenseConfig, figures: list[RowFigures]) -> TextTable:
    """A line for each row, means over the seeds."""
    lines = []
    for row in config.names:
        cells = [ROWS[row]]
        for samples in (0, config.samples):
            of_row = [each for each in figures if (each.row, each.samples) == (row, samples)]
            for figure in MEASURES:
                values = torch.tensor([getattr(each, figure) for each in of_row])
                spread = f" ± {values.std():.4f}" if samples and len(values) > 1 else ""
                cells.append(f"{values.mean():.4f}{spread}")
        lines.append((*cells, f"{of_row[0].multiply_adds / 1e9:.2f} G"))
    columns = [f"{length}, {what}" for length in ("untrained", f"{config.samples:,} images") for what in MEASURES.values()]
    title = f"Centred cosine, {config.tokens} tokens, {config.image_size} pixels"
    return TextTable(title, ("student", *columns, "multiply-adds"), tuple(lines))
