"""Several processes: the same samples, the same losses, the same student as one."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

import sparseformers
from sparseformers.train import RunFolder
from sparseformers.train.callbacks.held_out_record import HeldOutRecord
from sparseformers.train.run import _is_run_of
from tests.train.ranks import Group, start
from tests.train.ranks_work import Accident, command
from tests.train.runs import command_line, entries

SAMPLES = 34  # of batches of six: five whole ones, and one of four images


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A run of six steps on photographs of which two cannot be read; where to write is to be added."""
    options = ["--batch-size", "6", "--samples", str(SAMPLES), "--holdout", "0.3", "--evaluations", "2", "--workers", "0"]
    given = command_line(tmp_path, *options, "--log-every", "1", photographs=13)
    paths = sorted((tmp_path / "photos").iterdir())
    paths[3].write_bytes(paths[3].read_bytes()[:200])
    paths[7].write_bytes(b"no photograph")
    return given


def begin(folder: Path, name: str, count: int, arguments: list[str], *accidents: Accident, **environment: str) -> Group:
    output = folder / f"output-{name}"
    return start(count, command, arguments, folder / f"seen-{name}", accidents, output=output, **environment)


def finish(group: Group) -> None:
    assert set(group.join()) == {0}, "".join(group.said(rank) for rank in range(len(group.processes)))


def seen(folder: Path, name: str) -> dict[int, list[int]]:
    """The images of each step, over all processes, by the samples before it."""
    steps: dict[int, list[int]] = {}
    for file in (folder / f"seen-{name}").iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            steps.setdefault(entry["samples"], []).extend(entry["indices"])
    return {samples: sorted(indices) for samples, indices in sorted(steps.items())}


def python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False, timeout=300)


def assert_same(one: Path, other: Path, *, weights: float = 1e-5) -> None:
    """The losses of all steps to 1e-5, the held-out figures to 1e-6."""
    losses = [[entry["loss"] for entry in entries(run, "train")] for run in (one, other)]
    assert len(losses[0]) == -(-SAMPLES // 6)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    figures = [[(entry["centred_cosine"], entry["cosine_mean"]) for entry in entries(run, "held_out")] for run in (one, other)]
    assert len(figures[0]) == 3
    for mine, theirs in zip(*figures, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)
    mine, theirs = (sparseformers.load(run).state_dict() for run in (one, other))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=weights)
    kept = [HeldOutRecord(RunFolder(run).held_out) for run in (one, other)]
    cosines = [{each.name: each.cosine for each in record.cosines()} for record in kept]
    assert cosines[0] == pytest.approx(cosines[1], abs=1e-5)
    rois = [[(moment.samples, moment.rois) for moment in record.moments()] for record in kept]
    assert [samples for samples, _ in rois[0]] == [samples for samples, _ in rois[1]]
    for (_, mine_of), (_, theirs_of) in zip(*rois, strict=True):
        torch.testing.assert_close(mine_of, theirs_of, rtol=0, atol=1e-4)
    assert RunFolder(one).skipped.read_text(encoding="utf-8") == RunFolder(other).skipped.read_text(encoding="utf-8")


@pytest.mark.slow
def test_bootstrap__one_two_and_four_processes_agree(tmp_path: Path, arguments: list[str]) -> None:
    cases = {"one": (1, []), "two": (2, []), "four": (4, []), "accumulated": (1, ["--accumulate", "4"])}
    cases["sharded"] = (2, ["--shard-weights", "--accumulate", "2"])
    groups = {
        name: begin(tmp_path, name, count, [*arguments, *options, "--out", str(tmp_path / name)])
        for name, (count, options) in cases.items()
    }
    for name, group in groups.items():
        finish(group)
        assert_same(tmp_path / "one", tmp_path / name)
        assert seen(tmp_path, name) == seen(tmp_path, "one")
        for rank in range(1, len(group.processes)):
            assert group.said(rank) == ""
        assert (tmp_path / name / "train.log").read_text(encoding="utf-8").count("started from") == 1


def test_restart__ends_as_if_nothing_had_been(tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*arguments, "--checkpoint-every", "1steps"]
    whole = begin(tmp_path, "whole", 2, [*arguments, "--out", str(tmp_path / "whole")])
    stopped = [*arguments, "--out", str(tmp_path / "stopped")]
    launcher = {"TORCHELASTIC_RUN_ID": "job"}
    broken = begin(tmp_path, "stopped", 2, stopped, Accident("killed", 18, (1,)), **launcher)
    assert broken.join() == [1, -9]
    again = begin(tmp_path, "stopped", 2, stopped, TORCHELASTIC_RESTART_COUNT="1", **launcher)
    finish(again)
    finish(whole)
    # The checkpoint after 12 may still have been on its way to the disk.
    log = (tmp_path / "stopped" / "train.log").read_text(encoding="utf-8")
    assert re.search(r"resumed from (0|6|12) images seen", log)
    assert_same(tmp_path / "whole", tmp_path / "stopped", weights=0)

    # To a process of another launcher, or with other settings, the folder is in use.
    settings = RunFolder(tmp_path / "stopped").settings()
    for name, asked, own in (("job", settings, True), ("another", settings, False), ("job", settings.with_(lr=1), False)):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
        assert _is_run_of(tmp_path / "stopped", asked) == own


@pytest.mark.parametrize("options", [[], pytest.param(["--shard-weights"], marks=pytest.mark.slow)], ids=["plain", "sharded"])
def test_resume__with_other_numbers_of_processes(tmp_path: Path, arguments: list[str], options: list[str]) -> None:
    arguments = [*arguments, *options, "--checkpoint-every", "1steps"]
    whole = begin(tmp_path, "whole", 1, [*arguments, "--out", str(tmp_path / "whole")])
    run = tmp_path / "run"
    assert begin(tmp_path, "run", 4, [*arguments, "--out", str(run)], Accident("killed", 12, (2,))).join() == [1, 1, -9, 1]
    assert begin(tmp_path, "run", 1, ["resume", str(run)], Accident("killed", 24, (0,))).join() == [-9]
    finish(begin(tmp_path, "run", 2, ["resume", str(run)]))
    finish(whole)
    assert_same(tmp_path / "whole", run)
    # Steps after the last checkpoint are made again; what counts is each step's last time.
    assert [set(indices) for indices in seen(tmp_path, "run").values()] == [set(i) for i in seen(tmp_path, "whole").values()]
    epoch = [index for indices in seen(tmp_path, "whole").values() for index in indices]
    assert max(Counter(epoch).values()) - min(Counter(epoch).values()) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--front", "focusing", "--focusing-width", "64", "--channels", "8", "--points", "4"],
        ["--elastic", "9", "--dense"],
        ["--eval-views", "3", "--cached-views", "2", "--cache-teacher", "cache"],
    ],
    ids=["focusing", "elastic", "views"],
)
def test_bootstrap__every_kind_of_student_agrees(tmp_path: Path, arguments: list[str], options: list[str]) -> None:
    if "--cache-teacher" in options:
        options = [*options[:-1], str(tmp_path / "cache")]
    cases = {"one": (1, []), "four": (4, ["--accumulate", "2"]), "sharded": (2, ["--shard-weights"])}
    for name, (count, more) in cases.items():
        finish(begin(tmp_path, name, count, [*arguments, *options, *more, "--out", str(tmp_path / name)]))
        assert_same(tmp_path / "one", tmp_path / name, weights=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        "torch.distributed.run --standalone --nproc-per-node=2",
        "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no",
    ],
    ids=["torchrun", "accelerate"],
)
def test_launchers__two_processes_agree_with_one(tmp_path: Path, arguments: list[str], launcher: str) -> None:
    for name, launch in (("one", []), ("two", ["-m", *launcher.split()])):
        finished = python(*launch, "-m", "sparseformers", *arguments, "--out", str(tmp_path / name))
        assert finished.returncode == 0, finished.stderr
    assert RunFolder(tmp_path / "two").read_config()["resolved"]["processes"] == 2
    assert finished.stdout.count("held-out centred cosine") == 1 + 3
    assert_same(tmp_path / "one", tmp_path / "two")


def under_torchrun(folder: Path, accident: str, arguments: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Two processes, of which the second has an accident after 12 images, once."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *options, "-m", "tests.train.ranks_work"]
    return python(*launcher, accident, "12", "1", str(folder / "once"), *arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accident", "told"),
    [("killed", r"rank\s+: 1 .*\n\s+exitcode\s+: -9"), ("error", "The photographs are gone."), ("bug", "no such thing")],
)
def test_torchrun__when_one_ends_all_do_and_it_goes_on(tmp_path: Path, arguments: list[str], accident: str, told: str) -> None:
    run = tmp_path / "run"
    began = time.monotonic()
    failed = under_torchrun(tmp_path, accident, [*arguments, "--checkpoint-every", "1steps", "--out", str(run)])
    assert failed.returncode == 1
    assert time.monotonic() - began < 60
    assert re.search(told, failed.stderr)
    if accident != "killed":  # which nobody can note as soon as the other notes that it has lost its peer
        assert re.search(r"Root Cause.*\n(.*\n)+?\s+rank\s+: 1 ", failed.stderr)
    finish(begin(tmp_path, "run", 1, ["resume", str(run)]))
    assert len(entries(run, "train")) == -(-SAMPLES // 6)


@pytest.mark.slow
def test_torchrun__max_restarts_goes_on(tmp_path: Path, arguments: list[str]) -> None:
    arguments = [*arguments, "--checkpoint-every", "1steps"]
    run = tmp_path / "run"
    finished = under_torchrun(tmp_path, "killed", [*arguments, "--out", str(run)], "--max-restarts=1")
    assert finished.returncode == 0, finished.stderr
    assert "resumed from" in (run / "train.log").read_text(encoding="utf-8")
    finish(begin(tmp_path, "whole", 2, [*arguments, "--out", str(tmp_path / "whole")]))
    assert_same(tmp_path / "whole", run, weights=0)
