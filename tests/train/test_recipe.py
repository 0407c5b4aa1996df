"""Recipes, and other changes to settings: a run that goes on refuses those that change what is learnt."""

from pathlib import Path

import pytest

from sparseformers.errors import ConfigError
from sparseformers.settings import Mark
from sparseformers.train import BootstrapConfig, RunFolder, resume
from sparseformers.train.recipe import (
    MOVABLE,
    RECIPE_KEYS,
    Recipe,
    list_recipes,
    load_recipe,
    parse_pairs,
    recipes_folder,
    refuse_changes,
)
from tests.refusals import refused
from tests.train.runs import edit

NO_METHOD = {
    *("teacher", "teacher_weights", "data", "weight", "tokens", "elastic", "image_size", "crop"),
    *("shuffle_shards", "max_pixels", "max_bad", "shard_cache", "shard_cache_gb"),
    *("epochs", "samples", "minutes", "precision", "seed", "data_seed", "cache_teacher", "cached_views"),
    *("gradient_checkpointing", "compile", "trackers", "tracker_project"),
    *("holdout", "holdout_limit", "eval_data", "eval_views", "evaluations", "log_every", "checkpoint_every", "keep", "workers"),
    *("accumulate", "shard_weights"),
}
"""Settings that are not of the method: what it is done to, for how long, how it is measured, and the machine."""


@pytest.fixture
def settings() -> BootstrapConfig:
    return BootstrapConfig.of(teacher="bundled", data=(Path("photos"),), eval_data=(Path("more"),), samples=100, lr=5e-4, seed=7)


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_recipe_keys__each_setting_is_of_the_method_or_is_not() -> None:
    assert set(RECIPE_KEYS) | NO_METHOD == set(BootstrapConfig.groups())
    assert not set(RECIPE_KEYS) & NO_METHOD


def test_paper_is_the_papers_recipe_fitted_its_network_from_the_fit_and_mixed_the_default(settings: BootstrapConfig) -> None:
    paper = load_recipe("paper")
    assert paper.name == "paper"
    applied = paper.apply(settings)
    expected = {"front": "focusing", "start": "random", "channels": 64, "points": 16, "iterations": 4, "batch_size": 32}
    expected |= {"lr": 1e-3, "tuned_lr_ratio": 0.1, "augment": "default", "weight_decay": 0.05, "warm_up": 0.05, "clip_norm": 1.0}
    thirds = {"truncate": None, "tune": None, "freeze": None}
    assert applied.flat().items() >= {**expected, **thirds, "dense": False, "whiten": False}.items()
    applied = load_recipe("fitted").apply(settings)
    assert (applied.network.front, applied.network.start, applied.whitens) == ("focusing", "fitted", False)
    plain = BootstrapConfig.of(teacher="bundled", data=(Path("photos"),))
    assert load_recipe("mixed").apply(plain) == plain.with_(whiten=True)
    assert plain.whitens


def test_apply__changes_what_the_recipe_sets_and_nothing_else(settings: BootstrapConfig) -> None:
    applied = Recipe("mine", "", {"lr": 2, "tune": 1}).apply(settings)
    assert applied == settings.with_(lr=2.0, tune=1)
    assert isinstance(applied.optimisation.lr, float)
    assert Recipe("empty", "", {}).apply(settings) == settings


def test_list_recipes__each_of_them_loads(settings: BootstrapConfig) -> None:
    for recipe in map(load_recipe, list_recipes()):
        assert recipe.description.endswith("."), recipe.name
        recipe.apply(settings)


def test_load_recipe__by_name_and_by_path(tmp_path: Path) -> None:
    path = written(tmp_path, 'description = "Mine."\n[settings]\nfront = "grid"\nlr = 3e-4\n')
    assert load_recipe(path) == Recipe("mine", "Mine.", {"front": "grid", "lr": 3e-4})
    assert load_recipe(str(path)) == load_recipe(path)
    assert "paper" in list_recipes()
    assert load_recipe(recipes_folder() / "paper.toml") == load_recipe("paper")


def test_load_recipe__unknown_name_suggests_and_lists() -> None:
    with pytest.raises(ConfigError, match="There is no recipe 'papper'") as caught:
        load_recipe("papper")
    assert "Did you mean 'paper'?" in caught.value.remedy
    assert f"Known are: {', '.join(list_recipes())}" in caught.value.remedy
    with pytest.raises(ConfigError, match=r"There is no recipe 'inherited' any more\. Use --recipe grid\."):
        load_recipe("inherited")


@pytest.mark.parametrize(
    ("settings", "problem", "remedy"),
    [
        ("lr_rate = 1e-3", "sets 'lr_rate', which is no part of a recipe", "Did you mean 'lr'"),
        ("samples = 100", "sets 'samples', which is no part of a recipe", "It may set: front"),
        ("teacher = 'bundled'", "sets 'teacher', which is no part of a recipe", "It may set: front"),
        ("lr = 'fast'", "recipe 'mine' does not fit: key 'lr': expected float but got 'fast'", "Known keys"),
        ("tune = true", "recipe 'mine' does not fit: key 'tune': expected int but got True", "Known keys"),
        ("whiten = 0.5", "recipe 'mine' does not fit: key 'whiten': expected bool but got 0.5", "Known keys"),
        ("front = 'back'", "'back' is none of 'mixed', 'grid', 'focusing'", "Known keys"),
        ("lr = -1.0", "recipe 'mine' does not fit: --lr must be above 0, not -1.0", "positive"),
    ],
)
def test_load_recipe__settings_that_do_not_fit(tmp_path: Path, settings: str, problem: str, remedy: str) -> None:
    path = written(tmp_path, f'description = "Mine."\n[settings]\n{settings}\n')
    with refused(ConfigError, problem, remedy):
        load_recipe(path)


def test_load_recipe__a_file_of_another_form(tmp_path: Path) -> None:
    for text in (
        "[settings]\nlr = 1e-3\n",
        'description = "Mine."\n',
        "description = 3\n[settings]\n",
        'description = "Mine."\nlr = 1e-3\n[settings]\n',
        'description = "Mine."\nsettings = 3\n',
    ):
        with refused(ConfigError, "is no recipe", "[settings]"):
            load_recipe(written(tmp_path, text))
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        load_recipe(written(tmp_path, "description = "))


def test_flags__are_those_of_bootstrap() -> None:
    recipe = Recipe("mine", "", {"front": "grid", "lr": 1e-3, "whiten": False})
    assert recipe.flags() == ["--front", "grid", "--lr", "0.001", "--whiten", "False"]


def test_parse_pairs__values_as_in_toml_and_what_is_no_pair() -> None:
    pairs = ["checkpoint-every=5steps", "keep = 2", "lr=1e-3", "shard_weights=true"]
    assert parse_pairs(pairs) == {"checkpoint_every": "5steps", "keep": 2, "lr": 1e-3, "shard_weights": True}
    for pair, problem, remedy in (
        ("keep", "--set keep is not KEY=VALUE.", "batch_size=64"),
        ("kep=2", "--set kep=2 names no setting of bootstrap.", "Did you mean 'keep'?"),
    ):
        with refused(ConfigError, problem, remedy):
            parse_pairs([pair])


def test_refuse_changes__names_each_of_them_and_lets_pass_what_has_no_effect(shared_settings: BootstrapConfig) -> None:
    settings, free = shared_settings, BootstrapConfig.marked(Mark.WITHOUT_EFFECT)
    problem = "the settings 'samples', 'lr' (samples is 24, 48 asked; lr is 0.0001, 0.5 asked)"
    with refused(ConfigError, problem, f"start a new run; these may change: {', '.join([*free, *MOVABLE])}."):
        refuse_changes(settings, settings.with_(lr=0.5, samples=48, workers=3))
    harmless = {"workers": 3, "checkpoint_every": "7s", "keep": 1, "log_every": 2}
    assert set(harmless) <= set(free)
    assert len(refuse_changes(settings, settings.with_(**harmless))) == len(harmless)
    assert refuse_changes(settings, settings) == []


def test_resume__keeps_a_change_without_effect_and_refuses_others(copied_run: Path) -> None:
    run = copied_run
    (run / "README.md").unlink()
    with pytest.raises(ConfigError, match="cannot change the setting 'lr'"):
        resume(run, lr=0.5)
    with pytest.raises(ConfigError, match=r"--set of this resume does not fit: .*keep must be at least 1"):
        resume(run, keep=0)
    assert RunFolder(run).settings().optimisation.lr == 1e-4
    resume(run, keep=1, lr=1e-4)
    assert RunFolder(run).settings().run.keep == 1
    assert "changed: keep is 3, 1 asked" in (run / "train.log").read_text()
    # Settings that were edited since the checkpoint.
    (run / "README.md").unlink()
    edit(run / "config.json", lambda content: content["settings"]["optimisation"].update(weight_decay=0.5))
    with pytest.raises(ConfigError, match=r"'weight_decay' \(weight_decay is 0.05, 0.5 asked\)"):
        resume(run)
