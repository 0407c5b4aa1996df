"""A run that goes on keeps its settings, but for those that change nothing of what is learnt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparseformers.errors import ConfigError
from sparseformers.settings import Mark
from sparseformers.train import BootstrapConfig, RunFolder, bootstrap, resume
from sparseformers.train.recipe import parse_pairs, refuse_changes, setting_names
from tests.train.runs import changed, tiny_settings


def test_parse_pairs__values_as_in_toml() -> None:
    pairs = ["checkpoint-every=5steps", "keep = 2", "lr=1e-3", "shard_weights=true"]
    assert parse_pairs(pairs, setting_names()) == {"checkpoint_every": "5steps", "keep": 2, "lr": 1e-3, "shard_weights": True}


@pytest.mark.parametrize(
    ("pair", "problem", "remedy"),
    [
        ("keep", "--set keep is not KEY=VALUE.", "batch_size=64"),
        ("kep=2", "--set kep=2 names no setting of bootstrap.", "Did you mean 'keep'?"),
    ],
)
def test_parse_pairs__what_is_none(pair: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pairs([pair], setting_names())
    assert caught.value.problem == problem
    assert remedy in caught.value.remedy


def test_refuse_changes__names_each_of_them(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    with pytest.raises(ConfigError) as caught:
        refuse_changes(settings, changed(settings, lr=0.5, samples=48, workers=3))
    assert "the settings 'samples', 'lr' (samples is 24, 48 asked; lr is 0.0001, 0.5 asked)" in caught.value.problem
    assert f"start a new run; these may change: {', '.join(BootstrapConfig.marked(Mark.WITHOUT_EFFECT))}." in caught.value.remedy


def test_refuse_changes__lets_pass_what_has_no_effect(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    harmless = {"workers": 3, "checkpoint_every": "7s", "keep": 1, "log_every": 2}
    assert set(harmless) <= set(BootstrapConfig.marked(Mark.WITHOUT_EFFECT))
    assert len(refuse_changes(settings, changed(settings, **harmless))) == len(harmless)
    assert refuse_changes(settings, settings) == []


def test_resume__keeps_a_change_without_effect_and_refuses_others(tmp_path: Path) -> None:
    run = tmp_path / "run"
    bootstrap(changed(tiny_settings(tmp_path), samples=8), run)
    (run / "README.md").unlink()
    with pytest.raises(ConfigError, match="cannot change the setting 'lr'"):
        resume(run, lr=0.5)
    with pytest.raises(ConfigError, match=r"--set of this resume does not fit: .*keep must be at least 1"):
        resume(run, keep=0)
    assert RunFolder(run).settings().optimisation.lr == 1e-4
    resume(run, keep=1, lr=1e-4)
    assert RunFolder(run).settings().run.keep == 1
    assert "changed: keep is 3, 1 asked" in (run / "train.log").read_text()


def test_resume__settings_that_were_edited_since_the_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    bootstrap(changed(tiny_settings(tmp_path), samples=8), run)
    (run / "README.md").unlink()
    config = json.loads((run / "config.json").read_text())
    config["settings"]["optimisation"]["weight_decay"] = 0.5
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"'weight_decay' \(weight_decay is 0.05, 0.5 asked\)"):
        resume(run)


def test_settings__checkpoints(tmp_path: Path) -> None:
    settings: BootstrapConfig = tiny_settings(tmp_path)
    with pytest.raises(ConfigError, match="--checkpoint-every soon cannot be understood"):
        changed(settings, checkpoint_every="soon")
    with pytest.raises(ConfigError, match="--keep must be at least 1, not 0"):
        changed(settings, keep=0)
