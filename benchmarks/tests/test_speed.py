"""``python -m benchmarks speed`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.commands import main
from benchmarks.speed.machine import product
from benchmarks.tests.speed.conftest import tiny_student as tiny_student
from benchmarks.tests.test_compare import refusal

SHORT = ("--models", "student,teacher", "--batch", "1,2", "--backend", "eager", "--turns", "3", "--no-memory")


@pytest.fixture(autouse=True)
def _small_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.speed.run.product", lambda side: product(64))


def test_table_and_summary(tiny_student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", str(tiny_student), *SHORT]) == 0
    printed = capsys.readouterr().out
    for part in ("Batch 1 (", "Batch 2 (", "student, fp32, eager", "teacher, fp32, eager", "multiply-adds", "Fastest, batch 1:"):
        assert part in printed, part


def test_json__is_all_of_standard_output(tiny_student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", str(tiny_student), *SHORT, "--precision", "fp32,int8", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["latency"]["batch"] for row in report["rows"]] == [1, 1, 2, 2]
    assert report["rows"][1]["times_teacher_best_path"] == 1.0
    assert report["left_out"][0].startswith("int8, eager: ")


def test_markdown__is_all_of_standard_output(tiny_student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", *SHORT, str(tiny_student), "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Batch 1 (")
    assert "| model, precision, backend | median ms |" in printed


def test_targets(tiny_student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", str(tiny_student), "--targets", "--backend", "eager", "--turns", "3", "--no-memory", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    first = report["targets"][0]
    assert (first["what"], first["batch"], first["goal"]) == ("float32 eager against the teacher's float32 eager", 1, "4.00x")
    assert isinstance(first["met"], bool)
    assert len(report["targets"]) == 15


def test_trace(tiny_student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", str(tiny_student), *SHORT, "--trace", str(tmp_path / "traces"), "--markdown"]) == 0
    printed = capsys.readouterr().out
    for part in ("Operators, batch 1", "Operators, batch 2", "| student, fp32, eager | all |", "teacher-fp32-eager.json"):
        assert part in printed, part
    assert "There is something at" in refusal(capsys, "speed", str(tiny_student), "--trace", str(tmp_path / "traces"))


def test_trace__in_json(tiny_student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", str(tiny_student), *SHORT, "--trace", str(tmp_path / "traces"), "--json"]) == 0
    profile = json.loads(capsys.readouterr().out)["rows"][0]["profile"]
    assert profile["operators"][0]["seconds"] >= profile["operators"][1]["seconds"]
    assert Path(profile["trace"]).is_file()


def test_bad_usage(tiny_student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        return refusal(capsys, "speed", *arguments)

    assert "neither a run folder, nor a model file" in refused(str(tmp_path / "nothing"))
    assert "Did you mean 'bf16'" in refused(str(tiny_student), "--precision", "fp32,b16")
    assert "--batch must be at least 1" in refused(str(tiny_student), "--batch", "0,1")
    assert "--batch" in refused(str(tiny_student), "--batch", "one")
    assert "cannot both be printed" in refused(str(tiny_student), "--json", "--markdown")
    assert "--targets decides itself" in refused(str(tiny_student), "--targets", "--batch", "2")
    assert "Nothing can be measured" in refused(str(tiny_student), *SHORT, "--precision", "int8")
