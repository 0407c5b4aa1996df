"""Rows of a comparison, each a named set of settings: recipes, and the rows of the paper's Table 1."""

from __future__ import annotations

from collections.abc import Sequence

from sparseformers.errors import ConfigError, suggest
from sparseformers.inheritance import split_depth
from sparseformers.train.recipe import Recipe, load_recipe

TABLE_1 = ("default", "all-frozen", "all-tunable", "no-truncation", "no-truncation-two-thirds")
"""The rows of the paper's Table 1 (appendix A.1), in its order."""


def recipe_rows(names: Sequence[str]) -> list[Recipe]:
    """A row for each recipe; raises ConfigError if there is none, one is unknown, or two have the same name."""
    rows = [load_recipe(name) for name in names]
    _check_names([row.name for row in rows], "recipe")
    return rows


def table_1_names(text: str) -> list[str]:
    """Names of rows of Table 1, separated by commas; raises ConfigError if there is none, or one is unknown or named twice."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TABLE_1:
            near = suggest(name, TABLE_1)
            raise ConfigError(f"Table 1 has no row '{name}'.", f"{near} Rows are: {', '.join(TABLE_1)}.".strip())
    _check_names(names, "row")
    return names


def table_1_rows(names: Sequence[str], depth: int) -> list[Recipe]:
    """Rows of the paper's Table 1 for a teacher of any depth, each with the paper's recipe in everything else.

    Args:
        names: among ``TABLE_1``.
        depth: L, the teacher's blocks; a third of them, rounded, is what the paper truncates and tunes.
    """
    third = split_depth(depth).truncate
    shares = {  # truncated and tuned blocks; the others are frozen
        "default": (third, third),
        "all-frozen": (third, 0),
        "all-tunable": (third, depth - third),
        "no-truncation": (0, third),
        "no-truncation-two-thirds": (0, 2 * third),
    }
    paper = load_recipe("paper")
    rows = []
    for name in names:
        truncate, tune = shares[name]
        freeze = depth - truncate - tune
        description = f"The paper's recipe: {truncate} truncated, {tune} of {depth - truncate} tuned, {freeze} frozen."
        rows.append(Recipe(name, description, {**paper.settings, "truncate": truncate, "tune": tune, "freeze": freeze}))
    return rows


def _check_names(names: Sequence[str], what: str) -> None:
    if not names:
        raise ConfigError(f"No {what} was named.", f"Name at least one {what}.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"The {what} '{twice}' was named twice.", "Name each of them once.")
