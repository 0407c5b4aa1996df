"""A run that is killed at random moments, also while it saves, ends as if nothing had happened."""

import json
from pathlib import Path

import pytest

from sparseformers.train import RunFolder
from tests.train.kills import Happened, run_with_kills
from tests.train.runs import FOCUSING, command_line, without_times


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A run of 20 steps, 6 passes over ten photographs, of which one cannot be read."""
    given = command_line(tmp_path, *FOCUSING, "--batch-size", "3", "--samples", "60", "--evaluations", "5")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    return [*given, "--log-every", "7", "--max-bad", "0.2"]


def driven(command: list[str], whole: Path, killed: Path, *, kills: int, seed: int = 0) -> Happened:
    """Runs the command twice, once with so many kills; what happened to that one."""
    runs = ((RunFolder(whole), 0), (RunFolder(killed), kills))
    uninterrupted, happened = (
        run_with_kills(run, [*command, "--out", str(run.path)], kills=count, seed=seed) for run, count in runs
    )
    assert uninterrupted[:3] == (0, 0, 0), uninterrupted.printed
    assert happened.code == 0, happened.printed
    if command[command.index("--workers") + 1] == "0":  # orphaned reading processes have a last word of PyTorch's own
        assert "Traceback" not in uninterrupted.printed + happened.printed
    return happened


def same_end(whole: Path, killed: Path) -> None:
    """Asserts that two runs ended alike, to the byte."""
    last = RunFolder(whole).checkpoint_folders()[-1].name
    for name in (
        *("model.safetensors", "checkpoints/best.safetensors", "skipped_images.txt"),
        *(f"checkpoints/{last}/{part}.safetensors" for part in ("student", "optimiser")),
    ):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    assert without_times(whole) == without_times(killed)
    kept = [{path.name: path.read_bytes() for path in (out / "held_out").iterdir()} for out in (whole, killed)]
    assert len(kept[0]) == 9  # six measurements, cosines, pictures of the first and of the worst images
    assert kept[0] == kept[1]
    assert all((out / "report.html").is_file() for out in (whole, killed))
    states = [json.loads((out / "checkpoints" / last / "state.json").read_text()) for out in (whole, killed)]
    for state in states:
        state["training"].pop("seconds")
        state["settings"]["run"].pop("workers")
        state.pop("random")  # what the operating system seeded Python's and numpy's generators with
    assert states[0] == states[1]
    assert [path.name for path in RunFolder(killed).checkpoint_folders()][-1] == last
    assert len(RunFolder(killed).checkpoint_folders()) == 3
    assert not list(killed.rglob(".*"))


def test_resume__after_kills_at_random_moments_ends_at_the_same_bytes(tmp_path: Path, command: list[str]) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    happened = driven([*command, "--workers", "0", "--checkpoint-every", "1steps"], whole, killed, kills=3)
    assert happened.killed >= 2  # a busy machine is late at times
    assert happened.while_saving >= 1
    same_end(whole, killed)


@pytest.mark.slow
def test_resume__after_up_to_twenty_kills_with_reading_processes(tmp_path: Path, command: list[str]) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ["--samples", "300", "--workers", "2", "--checkpoint-every", "0.3s"]
    happened = driven([*command, *options], whole, killed, kills=20, seed=2)
    assert happened.killed >= 5  # with rarer checkpoints the run is at its end before all twenty
    same_end(whole, killed)
