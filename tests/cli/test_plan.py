"""``sparseformers plan`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparseformers.cli.main import main
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
    assert main(["plan", "--teacher", teacher, "--images", "1.3e9", "--devices", "64", *TINY]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for part in (
        "1,300,000,000 images seen in 5,078,125 steps of 4 images on each of 64 devices",
        "multiply-adds, training",
        "backward",
        "optimiser",
        "device hours",
        "to read",
        "checkpoint",
        "assumed",
        "perfect scaling",
    ):
        assert part in printed, part


def test_plan__json_is_all_of_standard_output(teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "photos", 10)
    arguments = ["plan", "--teacher", teacher, "--data", str(tmp_path / "photos"), "--samples", "16", "--bytes-per-image", "5e4"]
    assert main([*arguments, *TINY, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["samples"], plan["steps"], plan["bytes_per_image"]) == (16, 4, 5e4)
    assert plan["measured"]["reading"] > 0
    assert plan["training_cost"]["student_backward"] > 0
    assert plan["sizes"]["checkpoint"] > plan["sizes"]["model"]
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
    assert "images per step on each device" in printed.lower()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Neither images nor their number were given"),
        (["--images", "many"], "--images"),
        (["--images", "-3"], "--images must be a whole number from 1 up"),
        (["--images", "10", "--devices", "0"], "--devices must be at least 1"),
        (["--images", "10", "--devices", "2.5"], "--devices"),
        (["--images", "10", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["--images", "10", "--tune", "9"], "--tune 9 is impossible"),
        (["--images", "10", "--epochs", "1", "--minutes", "1"], "The length of training was given 2 times"),
        (["--images", "10", "--recipe", "papper"], "There is no recipe 'papper'"),
        (["--data", "nowhere"], "The folder 'nowhere' does not exist"),
    ],
)
def test_plan__refuses_bad_usage(teacher: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refusal(capsys, "plan", "--teacher", teacher, *arguments, *TINY[:2])
