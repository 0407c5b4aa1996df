"""``python -m benchmarks`` as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.commands import BAD_USAGE, main
from benchmarks.recipes import ComparisonConfig
from benchmarks.speed.machine import product
from benchmarks.tests.recipes.conditions import Finished, tiny_comparison

SPEED = ("--models", "student,teacher", "--batch", "2", "--backend", "eager", "--turns", "3", "--no-memory")


@pytest.fixture(autouse=True)
def _small_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.speed.run.product", lambda side: product(64))


def flags(config: ComparisonConfig, **changes: object) -> list[str]:
    """The flags that ask for this comparison."""
    values = vars(config) | changes
    pairs = [(name.replace("_", "-"), value) for name, value in values.items() if name not in ("data", "overrides")]
    pairs += [("data", path) for path in values["data"]] + [("set", pair) for pair in values["overrides"]]
    return [part for name, value in pairs if value is not None for part in (f"--{name}", str(value))]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said on standard error to what is refused."""
    try:
        code = main(arguments)
    except SystemExit as stop:  # of the parser
        code = int(str(stop.code))
    captured = capsys.readouterr()
    assert (code, captured.out) == (BAD_USAGE, "")
    return " ".join(captured.err.split())


def test_help__shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name, example in (("recipes", "recipes paper --teacher"), ("table1", "table1 --teacher"), ("speed", "speed sf_base")):
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        assert f"Example: python -m benchmarks {example}" in " ".join(capsys.readouterr().out.split())


def test_recipes__of_a_finished_comparison(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["recipes", "paper", *flags(finished[0])]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    for line in (
        "training 1 of 2: paper, seed 0, finished before",
        "teacher at 32 px, 4 tokens",
        "ToMe on the teacher",
        " paper ",
    ):
        assert line in printed, line
    assert main([*asked, "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert "paper, seed 1, finished before" in captured.err
    assert report["rows"][0]["figures"]["samples"] == {"mean": 8.0, "deviation": 0.0, "n": 2}
    assert [point["samples"] for point in report["rows"][0]["runs"][0]["curve"]] == [0, 4, 8]
    assert len(report["untrained"]) == 4
    assert main([*asked, "--markdown", "--no-baselines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["", "---", "teacher", "paper"]


@pytest.mark.slow
def test_table1__trains_its_rows(copied: Callable[..., ComparisonConfig], capsys: pytest.CaptureFixture[str]) -> None:
    config = copied(seeds=1, budget="4-samples")
    assert main(["table1", *flags(config), "--rows", "no-truncation", "--markdown"]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:3] for row in rows[2:]] == [["no-truncation", "0", "2 of 6"]]
    assert (config.out / "no-truncation" / "seed-0" / "model.safetensors").is_file()


def test_comparisons__refuse_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_comparison(tmp_path)

    def refused(*arguments: str, **changes: object) -> str:
        return refusal(capsys, *arguments, *flags(config, **changes))

    said = refused("recipes", "papper")
    assert "There is no recipe 'papper'" in said
    assert "Did you mean 'paper'?" in said
    assert "No recipe was named" in refused("recipes")
    assert "Table 1 has no row 'default-ish'" in refused("table1", "--rows", "default-ish")
    assert "has no labelled test part" in refused("table1", eval_data=config.eval_data / "test")
    assert "'nowhere' does not exist" in refused("recipes", "paper", eval_data="nowhere")
    assert "'nowhere' does not exist" in refused("recipes", "paper", data=("nowhere",))
    assert str(config.eval_data) in refused("recipes", "paper", out=config.eval_data)
    assert "--json and --markdown cannot both" in refused("table1", "--json", "--markdown")
    assert "The budget '60k' cannot be understood" in refused("table1", budget="60k")
    assert "--set tokens=9" in refused("table1", overrides=("tokens=9",))
    assert not config.out.exists()


def test_speed__prints_tables_and_traces(tiny_student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["speed", str(tiny_student), *SPEED]
    assert main([*asked, "--trace", str(tmp_path / "traces")]) == 0
    printed = capsys.readouterr().out
    for part in ("Batch 2 (", "student, fp32, eager", "multiply-adds", "Fastest, batch 2:", "Operators, batch 2"):
        assert part in printed, part
    names = sorted(path.name for path in (tmp_path / "traces").iterdir())
    assert names == ["batch2-01-student-fp32-eager.json", "batch2-02-teacher-fp32-eager.json"]
    assert "There is something at" in refusal(capsys, *asked, "--trace", str(tmp_path / "traces"))
    assert main([*asked, "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Batch 2 (")
    assert "| model, precision, backend | median ms |" in printed


def test_speed__judges_targets_in_json(tiny_student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["speed", str(tiny_student), "--targets", "--backend", "eager", "--turns", "3", "--no-memory", "--json"]
    assert main(asked) == 0
    report = json.loads(capsys.readouterr().out)
    assert {row["latency"]["batch"] for row in report["rows"]} == {1, 16}
    first = report["targets"][0]
    assert (first["what"], first["batch"], first["goal"]) == ("float32 eager against the teacher's float32 eager", 1, "4.00x")
    assert isinstance(first["met"], bool)
    assert len(report["targets"]) == 15
    assert any(reason.startswith("int8, eager: ") for reason in report["left_out"])  # bfloat16 may be left out before it


def test_speed__refuses_bad_input(tiny_student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in (
        ((str(tmp_path / "nothing"),), "neither a run folder, nor a model file"),
        ((str(tiny_student), "--precision", "fp32,b16"), "Did you mean 'bf16'"),
        ((str(tiny_student), "--batch", "0,1"), "--batch must be at least 1"),
        ((str(tiny_student), "--batch", "one"), "--batch"),
        ((str(tiny_student), "--json", "--markdown"), "cannot both be printed"),
        ((str(tiny_student), "--targets", "--batch", "2"), "--targets decides itself"),
        ((str(tiny_student), *SPEED, "--precision", "int8"), "Nothing can be measured"),
    ):
        assert told in refusal(capsys, "speed", *arguments)
