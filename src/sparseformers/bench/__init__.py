"""A bench: recipes compared under the same conditions, over seeds, beside what needs no training.

A row is a named set of settings (a :class:`~sparseformers.bootstrap.recipe.Recipe`), read from a file or made for the paper's
Table 1; everything else is shared.
"""

from sparseformers.bench.config import BenchConfig
from sparseformers.bench.report import BenchReport
from sparseformers.bench.rows import TABLE_1, recipe_rows, table_1_names, table_1_rows
from sparseformers.bench.run_rows import Bench, open_bench, run_rows
from sparseformers.bench.tables import TextTable, recipes_table, table_1

__all__ = [
    "TABLE_1",
    "Bench",
    "BenchConfig",
    "BenchReport",
    "TextTable",
    "open_bench",
    "recipe_rows",
    "recipes_table",
    "run_rows",
    "table_1",
    "table_1_names",
    "table_1_rows",
]
