"""Recipes compared under the same conditions, over seeds, beside what needs no training.

A row is a named set of settings (a :class:`~sparseformers.train.recipe.Recipe`), read from a file or made for the paper's
Table 1; everything else is shared.
"""

from benchmarks.recipes.config import ComparisonConfig
from benchmarks.recipes.report import Findings
from benchmarks.recipes.rows import TABLE_1, recipe_rows, table_1_names, table_1_rows
from benchmarks.recipes.run import Comparison, open_comparison, run_rows
from benchmarks.recipes.tables import recipes_table, table_1

__all__ = [
    "TABLE_1",
    "Comparison",
    "ComparisonConfig",
    "Findings",
    "open_comparison",
    "recipe_rows",
    "recipes_table",
    "run_rows",
    "table_1",
    "table_1_names",
    "table_1_rows",
]
