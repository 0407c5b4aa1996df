"""The benchmarks' commands as a user types them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.commands import BAD_USAGE, main
from benchmarks.recipes import ComparisonConfig
from benchmarks.tests.recipes.conditions import tiny_comparison


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said on standard error to what is refused."""
    try:
        code = main(arguments)
    except SystemExit as stop:  # tyro refuses by itself
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert (code, captured.out) == (BAD_USAGE, "")
    return " ".join(captured.err.split())


def flags(config: ComparisonConfig, **changes: object) -> list[str]:
    """The flags that ask for this bench."""
    config = dataclasses.replace(config, **changes)  # type: ignore[arg-type]
    named = {"teacher": config.teacher, "eval-data": config.eval_data, "out": config.out, "budget": config.budget}
    named |= {"image-size": config.image_size, "tokens": config.tokens, "seeds": config.seeds, "eval-points": config.eval_points}
    pairs = [(name, str(value)) for name, value in named.items()]
    pairs += [("data", str(path)) for path in config.data] + [("set", pair) for pair in config.overrides]
    return [part for name, value in pairs for part in (f"--{name}", value)]


@pytest.mark.parametrize(("name", "example"), [("recipes", "recipes paper --teacher"), ("table1", "table1 --teacher")])
def test_help__shows_an_example(name: str, example: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"Example: python -m benchmarks {example}" in " ".join(capsys.readouterr().out.split())


def test_recipes__end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('description = "Mine."\n[settings]\nfront = "focusing"\nlr = 2e-3\n')
    asked = ["recipes", str(mine), *flags(tiny_comparison(tmp_path, seeds=1))]
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


def test_table1__end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["table1", *flags(tiny_comparison(tmp_path, seeds=1, budget="4-samples")), "--rows", "all-frozen,no-truncation"]
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
    config = tiny_comparison(tmp_path)

    def refused(*arguments: str, **changes: object) -> str:
        return refusal(capsys, *arguments, *flags(config, **changes))

    said = refused("recipes", "papper")
    assert "There is no recipe 'papper'" in said
    assert "Did you mean 'paper'?" in said
    assert "No recipe was named" in refused("recipes")
    assert "Table 1 has no row 'default-ish'" in refused("table1", "--rows", "default-ish")
    assert "has no labelled test part" in refused("table1", eval_data=config.eval_data / "test")
    assert "'nowhere' does not exist" in refused("recipes", "paper", eval_data=Path("nowhere"))
    assert "'nowhere' does not exist" in refused("recipes", "paper", data=(Path("nowhere"),))
    assert "in use" in refused("recipes", "paper", out=config.eval_data)
    assert "--json and --markdown cannot both" in refused("table1", "--json", "--markdown")
    assert "The budget '60k' cannot be understood" in refusal(capsys, "table1", *flags(config), "--budget", "60k")
    assert "--set tokens=9" in refusal(capsys, "table1", *flags(config), "--set", "tokens=9")
    assert not config.out.exists()
