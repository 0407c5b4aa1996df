"""How many tokens to merge in each block of a teacher, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from benchmarks.baselines.matching import most_merged
from sparseformers.config import BlockConfig, CortexConfig
from sparseformers.errors import ConfigError
from sparseformers.teachers import Teacher

TOLERANCE = 0.03
"""Share of a budget of multiply-adds by which it may be exceeded: schedules are steps apart."""


def constant_schedule(tokens: int, depth: int, count: int) -> tuple[int, ...]:
    """The same number of tokens merged away in each block, or half of those that are left where that is less.

    Args:
        tokens: patch tokens before the first block.
        depth: blocks.
        count: tokens to merge away per block.

    Raises:
        ConfigError: for a negative number.
    """
    if count < 0:
        raise ConfigError(f"{count} tokens cannot be merged in a block.", "Use 0 to merge none.")
    merged: list[int] = []
    for _ in range(depth):
        merged.append(min(count, most_merged(tokens - sum(merged))))
    return tuple(merged)


def early_schedule(tokens: int, depth: int, left: int) -> tuple[int, ...]:
    """Half of the tokens merged away in each of the first blocks, until so many are left, and none after that.

    Where only a few of the tokens can be afforded, a constant schedule runs out of them and the last blocks have one; this
    one has them all the way.

    Args:
        tokens: patch tokens before the first block.
        depth: blocks.
        left: tokens to be left, from 1.

    Raises:
        ConfigError: for fewer than one.
    """
    if left < 1:
        raise ConfigError(f"Merging cannot leave {left} tokens.", "Leave 1 or more.")
    merged: list[int] = []
    for _ in range(depth):
        remaining = tokens - sum(merged)
        merged.append(min(max(remaining - left, 0), most_merged(remaining)))
    return tuple(merged)


def check_schedule(tokens: int, depth: int, merged: Sequence[int]) -> None:
    """Raises ConfigError unless there is one number for each block, which merges none to half of the tokens left by then."""
    if len(merged) != depth:
        raise ConfigError(
            f"There are {len(merged)} numbers of tokens to merge for {depth} blocks.", "Give one number for each block."
        )
    for block, count in enumerate(merged):
        if not 0 <= count <= most_merged(tokens):
            raise ConfigError(
                f"Block {block} cannot merge {count} of the {tokens} tokens that reach it.",
                f"Use a number from 0 to {most_merged(tokens)}, half of them.",
            )
        tokens -= count


def merging_multiply_adds(teacher: Teacher, merged: Sequence[int]) -> int:
    """Multiply-adds of the teacher for one image when so many tokens are merged in each block.

    In closed form, by the rule of :func:`sparseformers.evaluation.multiply_adds`: all matrix products, those that compare
    keys included.

    Args:
        teacher: which one.
        merged: tokens to merge away in each block; zeros for the teacher as it is.

    Raises:
        ConfigError: for a schedule that is not possible.
    """
    anatomy, tokens = teacher.anatomy, teacher.patch_tokens
    check_schedule(tokens, teacher.depth, merged)
    block, prefix = anatomy.block, anatomy.prefix_tokens
    total = tokens * teacher.patch_embedding().weight.numel()
    for count in merged:
        total += 4 * (tokens + prefix) * block.width**2 + 2 * (tokens + prefix) ** 2 * block.width
        if count:
            total += (tokens - tokens // 2) * (tokens // 2) * (block.width // block.heads)
        tokens -= count
        total += (tokens + prefix) * _feed_forward(block)
    return total + _head(anatomy, tokens)


def _feed_forward(block: BlockConfig) -> int:
    """Multiply-adds of a feed-forward network for one token."""
    return (3 if block.gated else 2) * block.width * block.feed_forward_width


def _head(anatomy: CortexConfig, tokens: int) -> int:
    """Multiply-adds of pooling, projection and classifier over so many patch tokens."""
    width, total = anatomy.block.width, 0
    if anatomy.pooling == "attention":
        seen = tokens + (anatomy.prefix_tokens if anatomy.pool_prefix_tokens else 0)
        total += 2 * width**2 + 2 * seen * width**2 + 2 * seen * width + _feed_forward(anatomy.block)
    if anatomy.projection is not None:
        total += width * anatomy.projection
    return total + anatomy.embedding_width * (anatomy.classes or 0)


def merged_for_budget(
    teacher: Teacher, multiply_adds: float, *, schedule: Literal["constant", "early"] = "constant"
) -> tuple[int, ...]:
    """The schedule whose cost comes nearest to a budget, and exceeds it by 3% at most.

    Args:
        teacher: which one.
        multiply_adds: of one image, for example those of a student to compare with.
        schedule: the same number of tokens in each block (:func:`constant_schedule`), or as many as possible in the first
            blocks and none after (:func:`early_schedule`).

    Returns:
        Tokens to merge away in each block; all zeros where the teacher itself is within the budget.

    Raises:
        ConfigError: for a budget below what merging as many tokens as possible costs.
    """
    tokens, depth = teacher.patch_tokens, teacher.depth
    if schedule == "early":
        schedules = [early_schedule(tokens, depth, left) for left in range(1, tokens + 1)]
    else:
        schedules = [constant_schedule(tokens, depth, count) for count in range(most_merged(tokens) + 1)]
    costs = {merged: merging_multiply_adds(teacher, merged) for merged in schedules}
    possible = [merged for merged in costs if costs[merged] <= (1 + TOLERANCE) * multiply_adds]
    if not possible:
        raise ConfigError(
            f"No merging of tokens brings this teacher down to {multiply_adds / 1e9:.3g} G multiply-adds.",
            f"Allow {min(costs.values()) / 1e9:.3g} G or more.",
        )
    return min(possible, key=lambda merged: abs(costs[merged] - multiply_adds))
