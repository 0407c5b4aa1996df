"""What the folder of a run says about it: alive, finished, stopped or dead, and how to go on."""

import dataclasses
import json
import os
import socket
import time
from pathlib import Path

import pytest

from sparseformers.cli.status import curve, status_table
from sparseformers.settings import to_dict
from sparseformers.train import BootstrapConfig, RunFolder, bootstrap
from sparseformers.train.callbacks import status as status_module
from sparseformers.train.callbacks.status import Beat, Heartbeat, read_beat, read_status
from sparseformers.train.state import TrainingState
from sparseformers.train.step import TrainingStep
from tests.train.runs import entries

NOW = 1_800_000_000.0
NO_PROCESS = 2**22 + 1  # a number that Linux gives to none


def made_up(folder: Path, beat: Beat | None, *, lines: int = 12) -> Path:
    """A run folder as a training of 4 images a step leaves it, without one."""
    run = RunFolder(folder)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"settings": {}, "resolved": {"budget_samples": 96, "budget_seconds": None}}))
    common = {"images_per_second": 8.0, "data_wait": 0.25, "peak_memory_gib": 1.5, "non_finite_steps": 1}
    for number in range(lines):
        loss = 1.0 if number < lines - 5 else 0.8
        run.append_metrics({"kind": "train", "samples": 4 * (number + 1), "seconds": number / 2, "loss": loss, **common})
    for number, cosine in enumerate((0.2, 0.7, 0.6)):
        figures = {"centred_cosine": cosine, "cosine_mean": 0.9, "cosine_p05": 0.5}
        run.append_metrics({"kind": "held_out", "samples": 24 * number, "seconds": 3.0 * number, **figures})
    if beat is not None:
        run.heartbeat.write_text(json.dumps(to_dict(beat)))
    return folder


def a_beat(**changes: object) -> Beat:
    return dataclasses.replace(
        Beat(state="running", at=NOW - 3, host="elsewhere", pid=os.getpid(), samples=52, progress=0.54, seconds=7.0),
        **changes,  # type: ignore[arg-type]
    )


def test_status__of_a_finished_run(finished: RunFolder) -> None:
    status, measured = read_status(finished.path), entries(finished.path, "held_out")
    assert (status.state, status.progress, status.samples, status.total_samples) == ("finished", 1.0, 24, 24)
    cosines = [entry["centred_cosine"] for entry in measured]
    assert (status.held_out_first, status.held_out_best, status.held_out_last) == (cosines[0], max(cosines), cosines[-1])
    assert (status.seconds_left, status.resume) == (0.0, None)
    assert status.checkpoint == finished.path / "checkpoints" / "step-00000006"
    assert len(status.losses) == 6
    assert (status.host, status.pid) == (socket.gethostname(), os.getpid())


def test_status__while_it_runs(shared_settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "BEAT_SECONDS", 0.01)
    run, seen = tmp_path / "my run", []

    def look_and_stop(_step: TrainingStep, *_given: object, **_named: object) -> None:
        time.sleep(0.1)
        seen.append(read_status(run))
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingStep, "__call__", look_and_stop)
    with pytest.raises(KeyboardInterrupt):
        bootstrap(shared_settings.with_(log_every=1), run)
    assert (seen[0].state, seen[0].samples, seen[0].resume) == ("running", 0, None)
    status = read_status(run)
    assert status.state == "stopped"
    assert "(interrupted)" in status.message
    (run / "checkpoints" / "step-00000004").mkdir()
    assert read_status(run).resume == f"sparseformers resume '{run}'"


def test_status__figures_are_those_of_the_metrics(tmp_path: Path) -> None:
    status = read_status(made_up(tmp_path / "run", a_beat()), now=NOW)
    assert (status.state, status.samples, status.progress, status.seconds) == ("running", 52, 0.54, 7.0)
    assert status.seconds_left == pytest.approx((96 - 52) / 8.0)
    assert (status.loss, status.loss_change) == pytest.approx((0.8, -0.2))
    assert (status.held_out_first, status.held_out_best, status.held_out_last) == (0.2, 0.7, 0.6)
    assert (status.cosine_mean, status.cosine_p05) == (0.9, 0.5)
    assert (status.images_per_second, status.data_wait, status.peak_memory_gib) == (8.0, 0.25, 1.5)
    assert (status.non_finite_steps, status.skipped_images) == (1, 0)


@pytest.mark.parametrize(
    ("beat", "state", "message"),
    [
        (a_beat(at=NOW - 600), "dead", "(10 min ago), from process"),
        (a_beat(at=NOW - 50), "running", "It is running as process"),
        (a_beat(pid=NO_PROCESS), "running", "on elsewhere"),  # another machine's processes are not looked up
        (a_beat(pid=NO_PROCESS, host=socket.gethostname()), "dead", "is gone: no sign of life since"),
        (a_beat(state="stopped", reason="DataError: no images"), "stopped", "(DataError: no images)"),
        (None, "unknown", "never gave a sign of life"),
    ],
)
def test_status__state(tmp_path: Path, beat: Beat | None, state: str, message: str) -> None:
    status = read_status(made_up(tmp_path / "run", beat), now=NOW)
    assert status.state == state
    assert message in status.message


def test_status__takes_the_newest_checkpoint_and_none_that_is_being_written(tmp_path: Path) -> None:
    run = made_up(tmp_path / "run", a_beat(at=NOW - 600))
    assert read_status(run, now=NOW).resume is None
    for age, name in enumerate(("best.safetensors", ".step-00000009.part", "step-00000008", "step-00000007")):
        (run / "checkpoints" / name).mkdir()
        os.utime(run / "checkpoints" / name, (NOW - age, NOW - age))
    status = read_status(run, now=NOW)
    assert status.checkpoint == run / "checkpoints" / "step-00000008"
    assert status.resume == f"sparseformers resume {run}"


def test_status__of_a_run_that_has_not_written_a_line(tmp_path: Path) -> None:
    run = made_up(tmp_path / "run", None, lines=0)
    (run / "metrics.jsonl").unlink()
    status = read_status(run)
    assert (status.samples, status.progress, status.loss, status.seconds_left) == (0, 0.0, None, None)
    assert status_table(status).row_count >= 4


def test_heartbeat__goes_on_by_itself_and_survives_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "BEAT_SECONDS", 0.01)
    path = tmp_path / "heartbeat.json"
    with Heartbeat(path, writes=True) as beats:
        first = read_beat(path)
        beats.on_step(TrainingState(samples=7, seconds=1.5, progress=0.25), None)
        time.sleep(0.2)
        later = read_beat(path)
    assert later.at > first.at
    assert (later.samples, later.progress, later.seconds) == (7, 0.25, 1.5)
    with Heartbeat(tmp_path / "absent" / "heartbeat.json", writes=True), Heartbeat(tmp_path / "silent.json", writes=False):
        pass
    assert {file.name for file in tmp_path.iterdir()} == {"heartbeat.json"}
    path.write_text("{torn")
    assert read_beat(path) is None


def test_curve__is_drawn_between_the_least_and_the_greatest() -> None:
    assert curve([3.0, 1.0, 2.0]) == "█▁▅"
    assert curve([1.0, 1.0]) == "▁▁"
    assert curve([1.0]) == ""
