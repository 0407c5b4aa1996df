from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.recipes import ComparisonConfig
from benchmarks.recipes.config import parse_budget, parse_overrides
from sparseformers.errors import ConfigError
from sparseformers.train.recipe import Recipe


def bench(**options: object) -> ComparisonConfig:
    needed = {"teacher": "bundled", "data": (Path("photos"),), "eval_data": Path("classes"), "out": Path("out")}
    return ComparisonConfig(**(needed | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("60k-samples", {"samples": 60_000}),
        ("14000-samples", {"samples": 14_000}),
        ("1.5M-samples", {"samples": 1_500_000}),
        ("10-minutes", {"minutes": 10.0}),
        ("0.5-minutes", {"minutes": 0.5}),
        ("5-epochs", {"epochs": 5.0}),
    ],
)
def test_parse_budget(text: str, setting: dict[str, float]) -> None:
    assert parse_budget(text) == setting


@pytest.mark.parametrize(
    "text", ["60k", "60000", "ten-minutes", "0-samples", "5k-minutes", "-5-epochs", "3-hours", "60ksamples", ""]
)
def test_parse_budget__what_cannot_be_understood(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be understood") as caught:
        bench(budget=text)
    assert "60k-samples" in caught.value.remedy


def test_parse_overrides__values_are_as_in_toml_and_bare_words_are_text() -> None:
    pairs = ("lr=3e-4", "batch-size = 64", "warm_up=0", "front=grid", 'augment="strong"')
    assert parse_overrides(pairs) == {
        "lr": 3e-4,
        "batch_size": 64,
        "warm_up": 0,
        "front": "grid",
        "augment": "strong",
    }


@pytest.mark.parametrize(
    ("pair", "problem", "remedy"),
    [
        ("lr", "is not KEY=VALUE", "--set batch_size=64"),
        ("lr=", "is not KEY=VALUE", "--set batch_size=64"),
        ("tokens=9", "what all rows share", "Use --tokens"),
        ("samples=9", "what all rows share", "Use --budget"),
        ("seed=9", "what all rows share", "Use --seeds"),
        ("bach_size=9", "names no setting", "Did you mean 'batch_size'"),
        ("lr=fast", "key 'lr': expected float but got 'fast'", "Known keys"),
        ("lr=-1", "--lr must be above 0", "positive"),
    ],
)
def test_overrides__that_do_not_fit(pair: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bench(overrides=(pair,))
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"eval_points": 0}, "--eval-points must be at least 1"),
        ({"tokens": 0}, "--tokens must be at least 1"),
        ({"image_size": 8}, "--image-size must be at least 32"),
        ({"crop": 1.5}, "--crop must be in"),
        ({"data": ()}, "No folder with images"),
    ],
)
def test_config__values_out_of_range(option: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        bench(**option)


def test_settings__a_row_counts_more_than_the_defaults_and_an_override_more_than_the_row() -> None:
    config = bench(budget="10-minutes", tokens=9, eval_points=4, overrides=("lr=5e-4",))
    settings = config.settings(Recipe("mine", "", {"lr": 2e-3, "points": 8}), 2, precision="bf16")
    expected = {"lr": 5e-4, "points": 8, "seed": 2, "precision": "bf16", "minutes": 10.0, "samples": None}
    assert settings.flat().items() >= {**expected, "tokens": 9, "evaluations": 4}.items()


def test_settings__paths_are_absolute_so_that_a_bench_can_go_on_from_anywhere() -> None:
    settings = bench(cache=Path("cache")).settings(Recipe("mine", "", {}), 0)
    assert settings.data.data == (str(Path("photos").absolute()),)
    assert settings.data.cache_teacher == Path("cache").absolute()


def test_settings__seeds_share_a_cache_and_only_then_their_views() -> None:
    row = Recipe("mine", "", {})
    assert bench(cache=Path("cache")).settings(row, 1).data.data_seed == 0
    assert bench(cache=Path("cache"), overrides=("data_seed=5",)).settings(row, 1).data.data_seed == 5
    assert bench().settings(row, 1).data.data_seed is None
