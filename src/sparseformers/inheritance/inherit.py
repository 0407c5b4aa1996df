"""Inheritance: what a student takes over from its teacher.

With the papers' front (Gao et al., CVPR 2024, section 3 and appendix A.1) the teacher's leading blocks are truncated, the
middle ones tuned, the ending ones and the head frozen. With a grid front nothing is truncated: the student starts as
its teacher at a lower resolution. Either way what it gives lies in the teacher's embedding space from the first step on.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from sparseformers.config import FocusingConfig, GridConfig, SparseFormerConfig
from sparseformers.errors import ConfigError
from sparseformers.inheritance.report import InheritReport, Provenance
from sparseformers.inheritance.shares import Shares, count_parameters, freeze_inherited, split_depth
from sparseformers.model import SparseFormer
from sparseformers.teachers import Teacher, load_teacher

FrontKind = Literal["grid", "focusing"]


class Inheritance(NamedTuple):
    """A student with what is known of its making."""

    student: SparseFormer
    """Frozen parts have ``requires_grad`` off."""
    report: InheritReport
    provenance: Provenance


def inherit(
    teacher: str | nn.Module,
    *,
    front: FrontKind = "grid",
    tokens: int | None = None,
    truncate: int | None = None,
    tune: int | None = None,
    freeze: int | None = None,
    focusing_width: int | None = None,
    channels: int = 64,
    points: int = 16,
    iterations: int = 4,
    seed: int = 0,
) -> Inheritance:
    """Makes a student of a teacher.

    Args:
        teacher: a name, a network, or a teacher; see :func:`sparseformers.load_teacher`.
        front: one that starts as the teacher at a lower resolution, or the paper's focusing transformer.
        tokens: latent tokens N, without class token and registers; a quarter of the teacher's patch tokens by default,
            rounded to a full grid (for the paper's front the class token counts).
        truncate: leading blocks to leave behind; by default a third for the paper's front, none for a grid one.
        tune: blocks after them to go on learning.
        freeze: ending blocks to keep as they are, a third by default; what is not given follows from the teacher's depth.
        focusing_width: the paper's front: F, by default half the teacher's width, rounded up to a multiple of 64.
        channels: the paper's front: C of the stem.
        points: the paper's front: P sampling points per token.
        iterations: the paper's front: of the focusing transformer.
        seed: of the starting values of the new parts.

    Raises:
        ConfigError: if the shares do not add up to the teacher's depth, or a size is impossible.
        TeacherError: if the teacher is unknown, or cannot be inherited from.
        WeightsError: if the teacher lacks a weight that it should have.
    """
    teacher = load_teacher(teacher)
    shares = _shares(teacher.depth, front, truncate=truncate, tune=tune, freeze=freeze)
    tokens = default_tokens(teacher, front) if tokens is None else tokens
    # The network: a front before as many of the teacher's blocks as are kept.
    if front == "grid":
        focusing: GridConfig | FocusingConfig = _grid_config(teacher, tokens)
    else:
        width = math.ceil(teacher.anatomy.block.width / 2 / 64) * 64 if focusing_width is None else focusing_width
        focusing = FocusingConfig(tokens=tokens, width=width, channels=channels, points=points, iterations=iterations)
    depth, on_grid = teacher.depth - shares.truncate, isinstance(focusing, GridConfig)
    cortex = dataclasses.replace(teacher.anatomy, depth=depth, prefix_from_front=on_grid)
    # Starting values of the new parts are a function of the seed alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = SparseFormer(SparseFormerConfig(focusing=focusing, cortex=cortex, preprocessing=teacher.preprocessing))
    # The teacher's weights come over them.
    inherited = _cortex_state(teacher, skipped=shares.truncate, prefix=not on_grid)
    if isinstance(focusing, GridConfig):
        inherited |= _front_state(teacher, focusing)
    student.load_state_dict(student.state_dict() | inherited)
    freeze_inherited(student, shares)
    provenance = Provenance(
        teacher=teacher.identity.name,
        teacher_fingerprint=teacher.fingerprint(),
        shares=shares,
        image_size=teacher.preprocessing.size,
        crop=teacher.preprocessing.crop,
    )
    size = sum(parameter.numel() for parameter in teacher.parameters())
    left_behind = () if on_grid else ("the patch embedding", "the position embeddings")
    return Inheritance(student, InheritReport(shares, count_parameters(student), size, left_behind), provenance)


def default_tokens(teacher: Teacher, front: FrontKind) -> int:
    """A quarter of the teacher's patch tokens on a full grid (256 -> 8 x 8); the paper counts the class token in (196 -> 48)."""
    side = max(2, round(math.sqrt(teacher.patch_tokens / 4)))
    return side * side - (min(1, teacher.anatomy.prefix_tokens) if front == "focusing" else 0)


def _shares(depth: int, front: FrontKind, *, truncate: int | None, tune: int | None, freeze: int | None) -> Shares:
    if front == "focusing":
        return split_depth(depth, truncate=truncate, tune=tune, freeze=freeze)
    if truncate:
        raise ConfigError(
            f"--truncate {truncate} is impossible with a grid front: it keeps all of the teacher's blocks.",
            "Leave it out, or use --front focusing.",
        )
    third = split_depth(depth).freeze
    return split_depth(depth, truncate=0, tune=tune, freeze=third if freeze is None and tune is None else freeze)


def _grid_config(teacher: Teacher, tokens: int) -> GridConfig:
    embedding = teacher.patch_embedding()
    return GridConfig(
        tokens=tokens,
        patch_size=teacher.patch_size,
        patch_bias=embedding.bias is not None,
        pre_norm=embedding.pre_norm is not None,
    )


def _cortex_state(teacher: Teacher, *, skipped: int, prefix: bool) -> dict[str, Tensor]:
    """The teacher's weights from the blocks on, without its first ones, as a student's; blocks are counted from 0 again."""
    kept = {}
    for name, value in teacher.cortex_state().items():
        room, _, rest = name.partition(".")
        if room == "blocks":
            index, _, leaf = rest.partition(".")
            if int(index) >= skipped:
                kept[f"cortex.blocks.{int(index) - skipped}.{leaf}"] = value
        elif room != "prefix" or prefix:
            kept[f"cortex.{name}"] = value
    return kept


def _front_state(teacher: Teacher, config: GridConfig) -> dict[str, Tensor]:
    """The teacher's weights for a grid front: patch embedding, positions on its grid, pre-norm, prefix tokens."""
    embedding = teacher.patch_embedding()
    state = {"embedding.weight": embedding.weight, "embedding.positions": teacher.positions_on(*config.grid)}
    if embedding.bias is not None:
        state["embedding.bias"] = embedding.bias
    if embedding.pre_norm is not None:
        state["pre_norm.weight"], state["pre_norm.bias"] = embedding.pre_norm
    if teacher.anatomy.prefix_tokens:
        state["prefix.tokens"] = teacher.prefix_tokens()
    return {f"focusing.{name}": value.detach().float().contiguous().clone() for name, value in state.items()}
