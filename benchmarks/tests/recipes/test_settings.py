"""What rows share and what they try: settings, budgets, recipes, and the rows of Table 1."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.recipes import TABLE_1, ComparisonConfig, recipe_rows, table_1_names, table_1_rows
from benchmarks.recipes.config import parse_budget, parse_overrides
from sparseformers.errors import ConfigError
from sparseformers.inheritance import split_depth
from sparseformers.train.recipe import Recipe, load_recipe

MINE = Recipe("mine", "", {})


def comparison(**options: Any) -> ComparisonConfig:
    needed: dict[str, Any] = {"teacher": "bundled", "data": (Path("photos"),), "eval_data": Path("classes"), "out": Path("out")}
    return ComparisonConfig(**(needed | options))


def test_parse_budget() -> None:
    assert parse_budget("60k-samples") == {"samples": 60_000}
    assert parse_budget("14000-samples") == {"samples": 14_000}
    assert parse_budget("1.5M-samples") == {"samples": 1_500_000}
    assert parse_budget("0.5-minutes") == {"minutes": 0.5}
    assert parse_budget("5-epochs") == {"epochs": 5.0}
    for text in ("60k", "60000", "ten-minutes", "0-samples", "5k-minutes", "-5-epochs", "3-hours", "60ksamples", ""):
        with pytest.raises(ConfigError, match="cannot be understood") as caught:
            comparison(budget=text)
        assert "60k-samples" in caught.value.remedy


def test_parse_overrides__values_are_as_in_toml_and_bare_words_are_text() -> None:
    pairs = ("lr=3e-4", "batch-size = 64", "warm_up=0", "front=grid", 'augment="strong"')
    assert parse_overrides(pairs) == {"lr": 3e-4, "batch_size": 64, "warm_up": 0, "front": "grid", "augment": "strong"}


def test_overrides__that_do_not_fit() -> None:
    for pair, problem, remedy in (
        ("lr", "is not KEY=VALUE", "--set batch_size=64"),
        ("lr=", "is not KEY=VALUE", "--set batch_size=64"),
        ("tokens=9", "what all rows share", "Use --tokens"),
        ("samples=9", "what all rows share", "Use --budget"),
        ("seed=9", "what all rows share", "Use --seeds"),
        ("bach_size=9", "names no setting", "Did you mean 'batch_size'"),
        ("lr=fast", "key 'lr': expected float but got 'fast'", "Known keys"),
        ("lr=-1", "--lr must be above 0", "positive"),
    ):
        with pytest.raises(ConfigError) as caught:
            comparison(overrides=(pair,))
        assert problem in caught.value.problem
        assert remedy in caught.value.remedy


def test_config__values_out_of_range() -> None:
    for option, problem in (
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"eval_points": 0}, "--eval-points must be at least 1"),
        ({"tokens": 0}, "--tokens must be at least 1"),
        ({"image_size": 8}, "--image-size must be at least 32"),
        ({"crop": 1.5}, "--crop must be in"),
        ({"data": ()}, "No folder with images"),
    ):
        with pytest.raises(ConfigError, match=problem):
            comparison(**option)


def test_settings__a_row_counts_more_than_the_defaults_and_an_override_more_than_the_row() -> None:
    config = comparison(budget="10-minutes", tokens=9, eval_points=4, overrides=("lr=5e-4",))
    settings = config.settings(Recipe("mine", "", {"lr": 2e-3, "points": 8}), 2, precision="bf16")
    expected = {"lr": 5e-4, "points": 8, "seed": 2, "precision": "bf16", "minutes": 10.0, "samples": None}
    assert settings.flat().items() >= {**expected, "tokens": 9, "evaluations": 4}.items()


def test_settings__paths_are_absolute_and_seeds_share_their_views_only_with_a_cache() -> None:
    settings = comparison(cache=Path("cache")).settings(MINE, 1)
    assert settings.data.data == (str(Path("photos").absolute()),)
    assert settings.data.cache_teacher == Path("cache").absolute()
    assert settings.data.data_seed == 0
    assert comparison(cache=Path("cache"), overrides=("data_seed=5",)).settings(MINE, 1).data.data_seed == 5
    assert comparison().settings(MINE, 1).data.data_seed is None


def test_recipe_rows__each_recipe_once() -> None:
    assert recipe_rows(["paper"]) == [load_recipe("paper")]
    for names, problem in (
        (["paper", "paper"], "The recipe 'paper' was named twice"),
        ([], "No recipe was named"),
        (["papper"], "There is no recipe 'papper'"),
    ):
        with pytest.raises(ConfigError, match=problem):
            recipe_rows(names)


def test_table_1_rows__for_teachers_of_any_depth_with_the_papers_recipe_in_everything_else() -> None:
    paper = load_recipe("paper").settings
    for depth, shares in {  # truncated, tuned, frozen
        12: [(4, 4, 4), (4, 0, 8), (4, 8, 0), (0, 4, 8), (0, 8, 4)],  # the paper's SF-B, and ViT-S/14
        24: [(8, 8, 8), (8, 0, 16), (8, 16, 0), (0, 8, 16), (0, 16, 8)],  # the paper's SF-L
        7: [(2, 2, 3), (2, 0, 5), (2, 5, 0), (0, 2, 5), (0, 4, 3)],
        2: [(1, 1, 0), (1, 0, 1), (1, 1, 0), (0, 1, 1), (0, 2, 0)],
    }.items():
        rows = table_1_rows(TABLE_1, depth)
        assert [row.name for row in rows] == list(TABLE_1)
        assert [(row.settings["truncate"], row.settings["tune"], row.settings["freeze"]) for row in rows] == shares
        for row in rows:
            named = {name: row.settings[name] for name in ("truncate", "tune", "freeze")}
            split_depth(depth, **named)
            assert row.settings == {**paper, **named}


def test_table_1_names() -> None:
    assert table_1_names("no-truncation, default,") == ["no-truncation", "default"]
    for text, problem, remedy in (
        ("default,all-frosen", "Table 1 has no row 'all-frosen'", "Did you mean 'all-frozen'"),
        ("everything", "Table 1 has no row 'everything'", "Rows are: default, all-frozen"),
        ("default,default", "The row 'default' was named twice", "once"),
        (" , ", "No row was named", "Name at least one row"),
    ):
        with pytest.raises(ConfigError) as caught:
            table_1_names(text)
        assert problem in caught.value.problem
        assert remedy in caught.value.remedy
