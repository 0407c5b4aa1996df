"""``bench-recipe``, ``ablate`` and ``bootstrap --recipe`` as a user types them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import sparseformers.cli.bootstrap as command
from benchmarks.recipes import BenchConfig
from benchmarks.tests.recipes.conditions import tiny_bench
from sparseformers.cli.bootstrap import expand_recipe
from sparseformers.cli.main import main
from sparseformers.train import BootstrapConfig
from tests.cli.test_main import refusal


def flags(config: BenchConfig, **changes: object) -> list[str]:
    """The flags that ask for this bench."""
    config = dataclasses.replace(config, **changes)  # type: ignore[arg-type]
    named = {"teacher": config.teacher, "eval-data": config.eval_data, "out": config.out, "budget": config.budget}
    named |= {"image-size": config.image_size, "tokens": config.tokens, "seeds": config.seeds, "eval-points": config.eval_points}
    pairs = [(name, str(value)) for name, value in named.items()]
    pairs += [("data", str(path)) for path in config.data] + [("set", pair) for pair in config.overrides]
    return [part for name, value in pairs for part in (f"--{name}", value)]


@pytest.mark.parametrize(("name", "example"), [("bench-recipe", "bench-recipe paper --teacher"), ("ablate", "ablate --teacher")])
def test_help__shows_an_example(name: str, example: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"Example: sparseformers {example}" in " ".join(capsys.readouterr().out.split())


def test_bench_recipe__end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('description = "Mine."\n[settings]\nfront = "focusing"\nlr = 2e-3\n')
    asked = ["bench-recipe", str(mine), *flags(tiny_bench(tmp_path, seeds=1))]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "training 1 of 1: mine, seed 0, starts" in printed
    for row in ("teacher at 32 px, 4 tokens", "ToMe on the teacher", " mine "):
        assert row in printed, row
    assert main([*asked, "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert "mine, seed 0, finished before" in captured.err
    assert report["rows"][0]["settings"] == {"front": "focusing", "lr": 2e-3}
    assert report["rows"][0]["figures"]["samples"] == {"mean": 8.0, "deviation": None, "n": 1}
    assert [point["samples"] for point in report["rows"][0]["runs"][0]["curve"]] == [0, 4, 8]
    assert len(report["untrained"]) == 4
    assert main([*asked, "--markdown", "--no-baselines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["", "---", "teacher", "mine"]


def test_ablate__end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["ablate", *flags(tiny_bench(tmp_path, seeds=1, budget="4-samples")), "--rows", "all-frozen,no-truncation"]
    assert main([*asked, "--markdown"]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:3] for row in rows[2:]] == [["all-frozen", "2", "0 of 4"], ["no-truncation", "0", "2 of 6"]]
    assert main([*asked, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    frozen, whole = (row["figures"] for row in report["rows"])
    assert whole["multiply_adds"] > frozen["multiply_adds"]
    assert whole["parameters"] > frozen["parameters"]
    assert [run["shares"]["freeze"] for row in report["rows"] for run in row["runs"]] == [4, 4]
    assert (tmp_path / "bench" / "all-frozen" / "seed-0" / "model.safetensors").is_file()


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_bench(tmp_path)

    def refused(*arguments: str, **changes: object) -> str:
        return refusal(capsys, *arguments, *flags(config, **changes))

    said = refused("bench-recipe", "papper")
    assert "There is no recipe 'papper'" in said
    assert "Did you mean 'paper'?" in said
    assert "No recipe was named" in refused("bench-recipe")
    assert "Table 1 has no row 'default-ish'" in refused("ablate", "--rows", "default-ish")
    assert "has no labelled test part" in refused("ablate", eval_data=config.eval_data / "test")
    assert "'nowhere' does not exist" in refused("bench-recipe", "paper", eval_data=Path("nowhere"))
    assert "'nowhere' does not exist" in refused("bench-recipe", "paper", data=(Path("nowhere"),))
    assert "in use" in refused("bench-recipe", "paper", out=config.eval_data)
    assert "--json and --markdown cannot both" in refused("ablate", "--json", "--markdown")
    assert "The budget '60k' cannot be understood" in refusal(capsys, "ablate", *flags(config), "--budget", "60k")
    assert "--set tokens=9" in refusal(capsys, "ablate", *flags(config), "--set", "tokens=9")
    assert not config.out.exists()


def test_expand_recipe__comes_before_what_the_user_gives() -> None:
    expanded = expand_recipe(["bootstrap", "--lr", "3e-3", "--recipe", "paper", "--out", "run"])
    assert expanded[-6:] == ["--lr", "3e-3", "--recipe", "paper", "--out", "run"]
    assert expanded[1:3] == ["--front", "focusing"]
    assert expand_recipe(["bootstrap", "--recipe=paper"])[1:3] == ["--front", "focusing"]
    for untouched in (["bootstrap", "--lr", "1"], ["bootstrap", "--recipe"], ["evaluate", "--recipe", "paper"], []):
        assert expand_recipe(untouched) == untouched


def test_bootstrap_recipe__flags_of_the_user_win_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[BootstrapConfig] = []

    def take(settings: BootstrapConfig, *_arguments: object, **_options: object) -> None:
        taken.append(settings)

    monkeypatch.setattr(command, "bootstrap", take)
    monkeypatch.setattr(command, "report_summary", lambda *_arguments, **_options: None)
    mine = tmp_path / "mine.toml"
    mine.write_text('description = "Mine."\n[settings]\nlooks = 2\nlr = 2e-3\nbatch_size = 64\naugment = "strong"\n')
    asked = ["bootstrap", "--teacher", "bundled", "--data", "photos", "--out", str(tmp_path / "run"), "--recipe", str(mine)]
    assert main([*asked, "--batch-size", "8"]) == 0
    assert main([*asked, "--looks", "1", "--lr", "1e-4"]) == 0
    first, second = taken
    assert (first.looks, first.lr, first.batch_size, first.augment) == (2, 2e-3, 8, "strong")
    assert (second.looks, second.lr, second.batch_size) == (1, 1e-4, 64)


def test_bootstrap_recipe__unknown(capsys: pytest.CaptureFixture[str]) -> None:
    needed = ["--teacher", "bundled", "--data", "photos", "--out", "run"]
    said = refusal(capsys, "bootstrap", *needed, "--recipe", "papper")
    assert "There is no recipe 'papper'" in said
    assert "Did you mean 'paper'?" in said


def test_bootstrap_recipe__is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bootstrap", "--help"])
    assert "A recipe to start from, such as paper" in " ".join(capsys.readouterr().out.replace("│", " ").split())
