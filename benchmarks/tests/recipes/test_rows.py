from __future__ import annotations

import pytest

from benchmarks.recipes import TABLE_1, recipe_rows, table_1_names, table_1_rows
from sparseformers.errors import ConfigError
from sparseformers.inheritance import split_depth
from sparseformers.train.recipe import load_recipe


@pytest.mark.parametrize(
    ("depth", "shares"),  # truncated, tuned, frozen
    [
        (12, [(4, 4, 4), (4, 0, 8), (4, 8, 0), (0, 4, 8), (0, 8, 4)]),  # the paper's SF-B, and ViT-S/14
        (24, [(8, 8, 8), (8, 0, 16), (8, 16, 0), (0, 8, 16), (0, 16, 8)]),  # the paper's SF-L
        (7, [(2, 2, 3), (2, 0, 5), (2, 5, 0), (0, 2, 5), (0, 4, 3)]),
        (2, [(1, 1, 0), (1, 0, 1), (1, 1, 0), (0, 1, 1), (0, 2, 0)]),
    ],
)
def test_table_1_rows__for_teachers_of_any_depth(depth: int, shares: list[tuple[int, int, int]]) -> None:
    rows = table_1_rows(TABLE_1, depth)
    assert [row.name for row in rows] == list(TABLE_1)
    assert [(row.settings["truncate"], row.settings["tune"], row.settings["freeze"]) for row in rows] == shares
    for row in rows:
        split_depth(depth, **{name: row.settings[name] for name in ("truncate", "tune", "freeze")})


def test_table_1_rows__have_the_papers_recipe_in_everything_else() -> None:
    paper = load_recipe("paper").settings
    for row in table_1_rows(TABLE_1, 12):
        assert {name: value for name, value in row.settings.items() if name not in ("truncate", "tune", "freeze")} == paper


def test_table_1_names__in_the_order_that_was_asked_for() -> None:
    assert table_1_names("no-truncation, default,") == ["no-truncation", "default"]


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("default,all-frosen", "Table 1 has no row 'all-frosen'", "Did you mean 'all-frozen'"),
        ("everything", "Table 1 has no row 'everything'", "Rows are: default, all-frozen"),
        ("default,default", "The row 'default' was named twice", "once"),
        (" , ", "No row was named", "Name at least one row"),
    ],
)
def test_table_1_names__that_do_not_fit(text: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table_1_names(text)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_recipe_rows__each_recipe_once() -> None:
    assert recipe_rows(["paper"]) == [load_recipe("paper")]
    with pytest.raises(ConfigError, match="The recipe 'paper' was named twice"):
        recipe_rows(["paper", "paper"])
    with pytest.raises(ConfigError, match="No recipe was named"):
        recipe_rows([])
    with pytest.raises(ConfigError, match="There is no recipe 'papper'"):
        recipe_rows(["papper"])
