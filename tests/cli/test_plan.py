from pathlib import Path

import pytest

from sparseformers.train.rehearsal import Rehearsal
from tests.cli.command import Command
from tests.tiny import SIDE

TINY = ["--image-size", str(SIDE), "--batch-size", "4", "--precision", "fp32", "--workers", "0", "--measure-seconds", "0.01"]


@pytest.fixture(autouse=True)
def _rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a wide terminal, with the times of a step known beforehand."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sparseformers.train.plan.rehearse", lambda *_given, **_named: Rehearsal(0.5, 0.25, 0.1, 0.1, 1.0))


def test_plan__prints_a_table_for_a_billion_images(teacher: str, command: Command) -> None:
    printed = command("plan", "--teacher", teacher, "--images", "1.3e9", "--devices", 64, *TINY, "--batch-size", 256)
    assert "5,078,125 of 256 images on 64 devices (1,300,000,000 seen, fp32)" in printed
    assert "64 devices, perfect scaling: 4 images a step on each" in printed
    for row in ("multiply-adds", "device hours", "memory", "to read", "checkpoint"):
        assert row in printed, row


def test_plan__json(teacher: str, photos: Path, command: Command) -> None:
    options = ["--samples", 16, "--bytes-per-image", "5e4", *TINY]
    plan = command.json("plan", "--teacher", teacher, "--data", photos, *options)
    assert (plan["samples"], plan["steps"], plan["bytes_per_image"]) == (16, 4, 5e4)
    assert min(plan["rehearsal"]["step"], plan["multiply_adds"]["student_backward"], len(plan["assumptions"])) > 0
    assert plan["checkpoint_bytes"] > plan["model_bytes"]


def test_plan__takes_a_recipe(teacher: str, command: Command) -> None:
    plan = command.json("plan", "--teacher", teacher, "--images", 100, "--recipe", "paper", *TINY)
    assert "truncated: 0 to 1" in plan["inheritance"][0]
    assert plan["batch_size"] == 4  # a flag counts more than the recipe


def test_plan__refuses_bad_usage(teacher: str, command: Command) -> None:
    for arguments, said in (
        ([], "Neither images nor their number were given. Add --images 1.3e9 or --data"),
        (["--images", "many"], "--images"),
        (["--images", "10", "--devices", "2.5"], "--devices"),
        (["--images", "10", "--devices", "64"], "64 devices cannot share a batch of 32 images evenly"),
        (["--images", "10", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["--images", "10", "--tune", "9"], "--tune 9 is impossible"),
        (["--images", "10", "--epochs", "1", "--minutes", "1"], "The length of training was given 2 times"),
        (["--images", "10", "--recipe", "papper"], "There is no recipe 'papper'"),
        (["--data", "nowhere"], "The folder 'nowhere' does not exist"),
    ):
        assert said in command.refused("plan", "--teacher", teacher, *arguments, *TINY[:2]), arguments


def test_bootstrap__dry_run_prints_what_plan_prints(teacher: str, photos: Path, tmp_path: Path, command: Command) -> None:
    words = ["--teacher", teacher, "--data", photos, "--samples", 16, *TINY[:-2]]
    dry_run = ["bootstrap", *words, "--out", tmp_path / "run", "--dry-run"]
    printed = command(*dry_run)
    for part in ("inheritance", "new", "tuned", "frozen", "4 of 4 images (16 seen, fp32)", "memory"):
        assert part in printed, part
    assert command("plan", *words) == printed
    assert command.json(*dry_run)["steps"] == 4
    assert not (tmp_path / "run").exists()
