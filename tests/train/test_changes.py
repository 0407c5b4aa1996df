"""A run that goes on keeps its settings, but for those that change nothing of what is learnt."""

from pathlib import Path

import pytest

from sparseformers.errors import ConfigError
from sparseformers.settings import Mark
from sparseformers.train import BootstrapConfig, RunFolder, resume
from sparseformers.train.recipe import MOVABLE, parse_pairs, refuse_changes
from tests.refusals import refused
from tests.train.runs import edit


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
