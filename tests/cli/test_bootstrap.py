from pathlib import Path

import pytest

from sparseformers.cli import bootstrap
from sparseformers.cli.bootstrap import expand_recipe
from sparseformers.train import BootstrapConfig
from sparseformers.train.recipe import load_recipe
from tests.cli.command import Command

ASKED = ("bootstrap", "--teacher", "bundled", "--data", "photos", "--out", "run", "--recipe")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[BootstrapConfig]:
    """The settings of the trainings that would have begun."""
    settings: list[BootstrapConfig] = []
    monkeypatch.setattr("sparseformers.train.bootstrap", lambda given, *_arguments, **_options: settings.append(given))
    monkeypatch.setattr(bootstrap, "report_summary", lambda *_arguments, **_options: None)
    return settings


def test_expand_recipe__comes_before_what_the_user_gives() -> None:
    expanded = expand_recipe(["--lr", "3e-3", "--recipe", "paper", "--out", "run"])
    assert expanded[-6:] == ["--lr", "3e-3", "--recipe", "paper", "--out", "run"]
    assert expanded[:2] == expand_recipe(["--recipe=paper"])[:2] == ["--front", "focusing"]
    for untouched in (["--lr", "1"], ["--recipe"], []):
        assert expand_recipe(untouched) == untouched


def test_recipe__flags_of_the_user_win_over_it(tmp_path: Path, command: Command, taken: list[BootstrapConfig]) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('description = "Mine."\n[settings]\ntune = 2\nlr = 2e-3\nbatch_size = 64\naugment = "strong"\n')
    command(*ASKED, mine, "--batch-size", 8)
    command(*ASKED, mine, "--lr", "1e-4")
    first, second = taken
    assert first.flat().items() >= {"tune": 2, "lr": 2e-3, "batch_size": 8, "augment": "strong"}.items()
    assert second.flat().items() >= {"tune": 2, "lr": 1e-4, "batch_size": 64}.items()


def test_recipe__sets_what_no_flag_sets(command: Command, taken: list[BootstrapConfig]) -> None:
    command(*ASKED, "fitted", "--points", 9)
    assert taken == [BootstrapConfig.of(teacher="bundled", data=["photos"], **load_recipe("fitted").settings).with_(points=9)]


def test_recipe__unknown_or_at_odds_with_a_flag(command: Command) -> None:
    assert "There is no recipe 'papper'. Did you mean 'paper'?" in command.refused(*ASKED, "papper")
    assert "The fitted start is for the paper's front" in command.refused(*ASKED, "fitted", "--front", "grid")
