"""Inheritance: what a student takes over from its teacher.

With the papers' front (Gao et al., CVPR 2024, section 3 and appendix A.1) the teacher's leading blocks are truncated, the
middle ones tuned, the ending ones and the head frozen. With the others nothing is truncated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from sparseformers.config import ReadOutConfig, SparseFormerConfig
from sparseformers.cortex_config import CortexConfig
from sparseformers.errors import ConfigError, TeacherError, suggest
from sparseformers.front_config import FocusingConfig, FrontConfig, GridConfig, MixedResolutionConfig
from sparseformers.inheritance.shares import InheritReport, Provenance, Shares, count_parameters, freeze_inherited, split_depth
from sparseformers.model import SparseFormer
from sparseformers.model.positions import of_blocks
from sparseformers.model.quadtree import Quadtree
from sparseformers.model.sparseformer import SMALLEST_SIDE
from sparseformers.rois import grid_of
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.teachers.hubs import restriction

SELECTOR_SHARE = 0.02  # of the student's multiply-adds, that the selector's patch embedding may cost, and again its convolutions
FrontKind = Literal["grid", "mixed", "focusing"]


class Inheritance(NamedTuple):
    """A student with what is known of its making."""

    student: SparseFormer  # frozen parts have ``requires_grad`` off
    report: InheritReport
    provenance: Provenance


def inherit(
    teacher: str | nn.Module,
    *,
    front: FrontKind | GridConfig | MixedResolutionConfig | FocusingConfig = "grid",
    tokens: int | None = None,
    truncate: int | None = None,
    tune: int | None = None,
    freeze: int | None = None,
    focusing_width: int | None = None,
    channels: int = 64,
    points: int = 16,
    iterations: int = 4,
    dense_layer: int | None = None,
    seed: int = 0,
) -> Inheritance:
    """Makes a student of a teacher: a name, a network, or a teacher; see :func:`sparseformers.load_teacher`.

    - ``front``: one that starts as the teacher at a lower resolution, as the cells of a grid or with RoIs of mixed sizes, or the
      paper's, of so many ``iterations``, C stem ``channels``, P ``points`` per token, and a ``focusing_width`` F, by default half
      the teacher's width, rounded up to a multiple of 64. Or a front's config, with its N in it; how patches are read follows
      the teacher. It is the grid by default, as a new map of where to look is flat: a training fits it (``bootstrap``).
    - ``tokens``: N, without class token and registers; a quarter of the teacher's patch tokens by default, rounded to a full grid
      (for the paper's front the class token counts). With RoIs of mixed sizes the nearest number that splits of four give.
    - Leading blocks to ``truncate`` (by default a third for the paper's front, none for the others), those after them to
      ``tune``, and ending ones to ``freeze`` (a third by default); what is not given follows from the teacher's depth.
    - ``dense_layer``: the teacher's layer that a read-out gives a map of, -1 for what its final norm gives; None for no read-out.
    - ``seed``: of the starting values of the new parts.

    Raises ConfigError if the shares do not add up to the teacher's depth, or a size is impossible, TeacherError if the teacher is
    unknown, or cannot be inherited from, and WeightsError if it lacks a weight that it should have.
    """
    kind: Any = front if isinstance(front, str) else getattr(front, "kind", front)
    _check_words(kind, {"tokens": tokens, "truncate": truncate, "tune": tune, "freeze": freeze, "seed": seed})
    teacher = load_teacher(teacher)
    _refuse_small_images(teacher)
    if not isinstance(front, str) and tokens is not None:
        raise ConfigError(f"The front's config has {front.tokens} tokens, and {tokens} are asked for.", "Leave out tokens.")
    shares = _shares(teacher.depth, kind, truncate=truncate, tune=tune, freeze=freeze)
    tokens = default_tokens(teacher, kind) if tokens is None else tokens
    focusing: FrontConfig
    if isinstance(front, GridConfig | MixedResolutionConfig):
        focusing, tokens = dataclasses.replace(front, **_reading(teacher)), front.tokens
    elif isinstance(front, FocusingConfig):
        focusing, tokens = front, front.tokens
    elif front == "focusing":
        width = math.ceil(teacher.anatomy.block.width / 2 / 64) * 64 if focusing_width is None else focusing_width
        focusing = FocusingConfig(tokens=tokens, width=width, channels=channels, points=points, iterations=iterations)
    elif front == "mixed":
        focusing = _mixed_config(teacher, tokens)
    else:
        focusing = GridConfig(tokens=tokens, aspect=_aspect(teacher), **_reading(teacher))
    student = _student(teacher, focusing, shares, dense_layer, seed)
    freeze_inherited(student, shares)
    provenance = Provenance(
        teacher=teacher.identity.name,
        teacher_fingerprint=teacher.fingerprint(),
        shares=shares,
        image_size=teacher.preprocessing.size,
        crop=teacher.preprocessing.crop,
    )
    size = sum(parameter.numel() for parameter in teacher.parameters())
    left_behind = ("the patch embedding", "the position embeddings") if kind == "focusing" else ()
    notes = _notes(teacher, asked=tokens, given=focusing.tokens)
    return Inheritance(student, InheritReport(shares, count_parameters(student), size, left_behind, notes), provenance)


def _student(teacher: Teacher, focusing: FrontConfig, shares: Shares, dense_layer: int | None, seed: int) -> SparseFormer:
    """A front before as many of the teacher's blocks as are kept; new parts start by the seed alone."""
    reads_as_teacher, aspect = isinstance(focusing, GridConfig | MixedResolutionConfig), _aspect(teacher)
    grid = grid_of(focusing.tokens, aspect if reads_as_teacher else 1.0)
    anatomy = _without_first(teacher.anatomy_on(*grid), shares.truncate)
    cortex = dataclasses.replace(anatomy, depth=teacher.depth - shares.truncate, prefix_from_front=reads_as_teacher)
    reading: dict[str, Any] = {"hidden": 3 * teacher.anatomy.block.width // 2, "grid": teacher.grid, **_reading(teacher)}
    read_out = None if dense_layer is None else ReadOutConfig(layer=dense_layer, **reading)
    config = SparseFormerConfig(focusing=focusing, cortex=cortex, preprocessing=teacher.preprocessing, read_out=read_out)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = SparseFormer(config)
    inherited = _cortex_state(teacher, grid, skipped=shares.truncate, prefix=not reads_as_teacher)
    if isinstance(focusing, GridConfig | MixedResolutionConfig):
        inherited |= _front_state(teacher, focusing)
    if read_out is not None:
        inherited |= _patches_state(teacher, "read_out", read_out.grid)
    student.load_state_dict(student.state_dict() | inherited)
    return student


def _aspect(teacher: Teacher) -> float:
    height, width = teacher.preprocessing.size
    return height / width


def _check_words(front: str, numbers: Mapping[str, int | None]) -> None:
    if front not in get_args(FrontKind):
        near = suggest(str(front), get_args(FrontKind))
        raise ConfigError(f"There is no front '{front}'.", near or f"Choose from {', '.join(get_args(FrontKind))}.")
    for name, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigError(f"{name} is a whole number, not {value!r}.", "Give a whole number, or leave it out.")


def _refuse_small_images(teacher: Teacher) -> None:
    if min(teacher.preprocessing.size) < SMALLEST_SIDE:
        height, width = teacher.preprocessing.size
        larger = math.ceil(SMALLEST_SIDE / teacher.patch_size) * teacher.patch_size
        problem = f"The teacher sees images of {height} x {width} pixels, and a student none below {SMALLEST_SIDE}."
        raise TeacherError(problem, f"Load the teacher with another image size (--image-size), for example {larger}.")


def _notes(teacher: Teacher, *, asked: int, given: int) -> tuple[str, ...]:
    notes = [f"The student has {given} tokens: splits of four give no {asked}."] if given != asked else []
    height, width = (side % teacher.patch_size for side in teacher.preprocessing.size)
    if height or width:
        notes.append(f"The teacher leaves out the last {height} rows and {width} columns of pixels; the student sees them all.")
    notes += [f"Teacher weights: {teacher.identity.source}."] if teacher.identity.place else []
    restricted = restriction(teacher.identity.licence)
    return (*notes, *teacher.liberties(), *([restricted] if restricted else []))


def default_tokens(teacher: Teacher, front: FrontKind) -> int:
    """A quarter of the teacher's patch tokens on a full grid (256 -> 8 x 8); the paper counts the class token in (196 -> 48)."""
    sides = [edge // teacher.patch_size for edge in teacher.preprocessing.size]
    full = math.prod(max(min(2, side), round(side / 2)) for side in sides)
    return full - (min(1, teacher.anatomy.prefix_tokens) if front == "focusing" else 0)


def _shares(depth: int, front: FrontKind, *, truncate: int | None, tune: int | None, freeze: int | None) -> Shares:
    if front == "focusing":
        return split_depth(depth, truncate=truncate, tune=tune, freeze=freeze)
    if truncate:
        problem = f"--truncate {truncate} is impossible with a {front} front: it keeps all of the teacher's blocks."
        raise ConfigError(problem, "Leave it out, or use --front focusing.")
    third = split_depth(depth).freeze
    return split_depth(depth, truncate=0, tune=tune, freeze=third if freeze is None and tune is None else freeze)


def _reading(teacher: Teacher) -> dict[str, Any]:
    """What the fronts that read patches as the teacher does have of it."""
    embedding = teacher.patch_embedding()
    norms = {"patch_norm": bool(embedding.patch_norm), "pre_norm": bool(embedding.pre_norm)}
    return {"patch_size": teacher.patch_size, "patch_bias": embedding.bias is not None, **norms}


def _mixed_config(teacher: Teacher, tokens: int) -> MixedResolutionConfig:
    """Splits of large cells down to the teacher's own patches; at least half of the tokens come of splits."""
    rows, columns = (side / teacher.patch_size for side in teacher.preprocessing.size)
    for levels in range(1, 12):
        start = (max(1, round(rows / 2**levels)), max(1, round(columns / 2**levels)))
        if math.prod(start) <= max(tokens / 2, min(4, tokens - 3)) or min(start) == 1:
            break
    first, most = math.prod(start), math.prod(start) * 4**levels
    tokens = min(first + 3 * max(1, round((tokens - first) / 3)), most)
    # The finest glance, and the more of two widths of the selector, that cost little beside the student's linear layers.
    width, affordable = teacher.anatomy.block.width, SELECTOR_SHARE * 12 * tokens * teacher.anatomy.block.width**2 * teacher.depth
    a_cell, map_cells = 3 * teacher.patch_size**2 * width, first * 4 ** (levels - 1)
    glance = max(level for level in range(min(3, levels)) if level == 0 or first * 4**level * a_cell <= affordable)
    channels = 64 if 2 * 9 * 64**2 * map_cells <= affordable else 32
    return MixedResolutionConfig(tokens=tokens, start=start, levels=levels, glance=glance, channels=channels, **_reading(teacher))


def _without_first(anatomy: CortexConfig, skipped: int) -> CortexConfig:
    """The same with positions for all blocks but the first ones, where each has its own."""
    positions = anatomy.positions
    if positions is None or positions.blocks == 1 or not skipped:
        return anatomy
    left = dataclasses.replace(positions, blocks=anatomy.depth - skipped)
    return dataclasses.replace(anatomy, positions=left, depth=anatomy.depth - skipped)


def _cortex_state(teacher: Teacher, grid: tuple[int, int], *, skipped: int, prefix: bool) -> dict[str, Tensor]:
    """The teacher's weights from the blocks on, without its first ones, as a student's; blocks are counted from 0 again."""
    kept, positions = {}, teacher.positions_state(*grid)
    if teacher.anatomy.positions is not None and teacher.anatomy.positions.blocks > 1:
        positions = of_blocks(positions, slice(skipped, None))
    for name, value in (teacher.cortex_state() | positions).items():
        room, _, rest = name.partition(".")
        if room == "blocks":
            index, _, leaf = rest.partition(".")
            if int(index) >= skipped:
                kept[f"cortex.blocks.{int(index) - skipped}.{leaf}"] = value
        elif room != "prefix" or prefix:
            kept[f"cortex.{name}"] = value
    return kept


def _front_state(teacher: Teacher, config: GridConfig | MixedResolutionConfig) -> dict[str, Tensor]:
    """The teacher's weights for a front that reads as it does: patch embedding, positions, pre-norm, prefix tokens."""
    grids = [config.grid] if isinstance(config, GridConfig) else Quadtree(config.start, config.levels).grids
    state = _patches_state(teacher, "focusing", *grids)
    if teacher.anatomy.prefix_tokens:
        state["focusing.prefix.tokens"] = teacher.prefix_tokens().float()
    return state


def _patches_state(teacher: Teacher, part: str, *grids: tuple[int, int]) -> dict[str, Tensor]:
    """The weights for a part that reads patches as the teacher does: as a map on one grid, or in cells of several."""
    embedding, positions = teacher.patch_embedding(), [teacher.positions_on(*grid) for grid in grids]
    state = {"embedding.weight": embedding.weight} | ({} if embedding.bias is None else {"embedding.bias": embedding.bias})
    in_cells = torch.cat([of_grid.flatten(1).T for of_grid in positions])
    state["embedding.positions"] = positions[0] if len(grids) == 1 else in_cells
    state |= {f"embedding.norm.{name}": value for name, value in embedding.patch_norm.items()}
    state |= {f"pre_norm.{name}": value for name, value in embedding.pre_norm.items()}
    return {f"{part}.{name}": value.detach().float().contiguous().clone() for name, value in state.items()}
