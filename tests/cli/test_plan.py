"""``sparseformers plan`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparseformers.cli.main import main
from sparseformers.train.rehearsal import Rehearsal
from tests.tiny import SIDE, write_images, write_teacher

TINY = ["--image-size", str(SIDE), "--batch-size", "4", "--precision", "fp32", "--workers", "0", "--measure-seconds", "0.01"]


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    return write_teacher(tmp_path / "teacher.safetensors")


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        code = main(arguments)
    except SystemExit as stop:  # of the parser
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in captured.out + captured.err
    return " ".join((captured.out + captured.err).split())


def test_plan__prints_a_table_for_a_billion_images(
    teacher: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["plan", "--teacher", teacher, "--images", "1.3e9", "--devices", "64", *TINY, "--batch-size", "256"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for part in (
        "5,078,125 of 256 images on 64 devices (1,300,000,000 seen, fp32)",
        "multiply-adds",
        "device hours",
        "memory",
        "to read",
        "checkpoint",
        "64 devices, perfect scaling: 4 images a step on each",
    ):
        assert part in printed, part


def test_plan__json_is_all_of_standard_output(teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "photos", 10)
    arguments = ["plan", "--teacher", teacher, "--data", str(tmp_path / "photos"), "--samples", "16", "--bytes-per-image", "5e4"]
    assert main([*arguments, *TINY, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["samples"], plan["steps"], plan["bytes_per_image"]) == (16, 4, 5e4)
    assert plan["rehearsal"]["step"] > 0
    assert plan["multiply_adds"]["student_backward"] > 0
    assert plan["checkpoint_bytes"] > plan["model_bytes"]
    assert plan["assumptions"]


def test_plan__takes_a_recipe(teacher: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--teacher", teacher, "--images", "100", "--recipe", "paper", *TINY, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert "truncated: 0 to 1" in plan["inheritance"][0]
    assert plan["batch_size"] == 4  # a flag counts more than the recipe


def test_plan__help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--help"])
    assert stop.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Example: sparseformers plan" in printed
    assert "--batch-size counts the images of all devices together" in printed.lower()


def test_plan__refuses_bad_usage(teacher: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        ([], "Neither images nor their number were given"),
        (["--images", "many"], "--images"),
        (["--images", "-3"], "--images must be at least 1"),
        (["--images", "10", "--devices", "0"], "--devices must be at least 1"),
        (["--images", "10", "--devices", "2.5"], "--devices"),
        (["--images", "10", "--devices", "64"], "64 devices cannot share a batch of 32 images evenly"),
        (["--images", "10", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["--images", "10", "--tune", "9"], "--tune 9 is impossible"),
        (["--images", "10", "--epochs", "1", "--minutes", "1"], "The length of training was given 2 times"),
        (["--images", "10", "--recipe", "papper"], "There is no recipe 'papper'"),
        (["--data", "nowhere"], "The folder 'nowhere' does not exist"),
    ):
        assert said in refusal(capsys, "plan", "--teacher", teacher, *arguments, *TINY[:2]), arguments


def test_bootstrap__dry_run_prints_what_plan_prints(
    teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write_images(tmp_path / "photos", 10)
    arguments = ["--teacher", teacher, "--data", str(tmp_path / "photos"), "--samples", "16", *TINY[:-2]]
    monkeypatch.setattr("sparseformers.train.rehearsal.rehearse", lambda *_given, **_named: Rehearsal(0.5, 0.25, 0.1, 0.1, 1.0))
    assert main(["bootstrap", *arguments, "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    dry = capsys.readouterr().out
    for part in ("inheritance", "new", "tuned", "frozen", "4 of 4 images (16 seen, fp32)", "memory"):
        assert part in " ".join(dry.split()), part
    assert main(["plan", *arguments]) == 0
    assert capsys.readouterr().out == dry
    assert main(["bootstrap", *arguments, "--out", str(tmp_path / "run"), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 4
    assert not (tmp_path / "run").exists()
