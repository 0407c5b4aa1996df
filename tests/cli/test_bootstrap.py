"""``bootstrap --recipe`` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

import sparseformers.cli.bootstrap as command
from sparseformers.cli.bootstrap import expand_recipe
from sparseformers.cli.main import main
from sparseformers.train import BootstrapConfig
from sparseformers.train.recipe import load_recipe
from tests.cli.test_main import refusal


def test_expand_recipe__comes_before_what_the_user_gives() -> None:
    expanded = expand_recipe(["--lr", "3e-3", "--recipe", "paper", "--out", "run"])
    assert expanded[-6:] == ["--lr", "3e-3", "--recipe", "paper", "--out", "run"]
    assert expanded[:2] == ["--front", "focusing"]
    assert expand_recipe(["--recipe=paper"])[:2] == ["--front", "focusing"]
    for untouched in (["--lr", "1"], ["--recipe"], []):
        assert expand_recipe(untouched) == untouched


def test_bootstrap_recipe__flags_of_the_user_win_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[BootstrapConfig] = []

    def take(settings: BootstrapConfig, *_arguments: object, **_options: object) -> None:
        taken.append(settings)

    monkeypatch.setattr("sparseformers.train.bootstrap", take)
    monkeypatch.setattr(command, "report_summary", lambda *_arguments, **_options: None)
    mine = tmp_path / "mine.toml"
    mine.write_text('description = "Mine."\n[settings]\ntune = 2\nlr = 2e-3\nbatch_size = 64\naugment = "strong"\n')
    asked = ["bootstrap", "--teacher", "bundled", "--data", "photos", "--out", str(tmp_path / "run"), "--recipe", str(mine)]
    assert main([*asked, "--batch-size", "8"]) == 0
    assert main([*asked, "--lr", "1e-4"]) == 0
    first, second = taken
    assert first.flat().items() >= {"tune": 2, "lr": 2e-3, "batch_size": 8, "augment": "strong"}.items()
    assert second.flat().items() >= {"tune": 2, "lr": 1e-4, "batch_size": 64}.items()


def test_bootstrap_recipe__unknown(capsys: pytest.CaptureFixture[str]) -> None:
    needed = ["--teacher", "bundled", "--data", "photos", "--out", "run"]
    said = refusal(capsys, "bootstrap", *needed, "--recipe", "papper")
    assert "There is no recipe 'papper'" in said
    assert "Did you mean 'paper'?" in said


def test_bootstrap_recipe__sets_what_no_flag_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[BootstrapConfig] = []
    monkeypatch.setattr("sparseformers.train.bootstrap", lambda settings, *_arguments, **_options: taken.append(settings))
    monkeypatch.setattr(command, "report_summary", lambda *_arguments, **_options: None)
    asked = ["bootstrap", "--teacher", "bundled", "--data", "photos", "--out", str(tmp_path / "run"), "--recipe", "fitted"]
    assert main([*asked, "--points", "9"]) == 0
    assert taken == [BootstrapConfig.of(teacher="bundled", data=["photos"], **load_recipe("fitted").settings).with_(points=9)]


def test_bootstrap_recipe__fitted_with_another_front(capsys: pytest.CaptureFixture[str]) -> None:
    needed = ["--teacher", "bundled", "--data", "photos", "--out", "run"]
    said = refusal(capsys, "bootstrap", *needed, "--recipe", "fitted", "--front", "grid")
    assert "The fitted start is for the paper's front" in said
