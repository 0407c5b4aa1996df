"""When one process ends, the others end too and say which one it was."""

from __future__ import annotations

import time
from pathlib import Path

from tests.tiny import SIDE, write_images, write_teacher
from tests.train.ranks import Group, start
from tests.train.ranks_work import Accident, command

LONGEST = 60
"""Seconds within which the others have to end."""


def arguments(folder: Path, out: str) -> list[str]:
    """A run of six steps."""
    if not (folder / "photos").is_dir():
        write_images(folder / "photos", 12)
        write_teacher(folder / "teacher.safetensors")
    teacher = f"timm:test_vit@{folder / 'teacher.safetensors'}"
    options = ["--teacher", teacher, "--data", str(folder / "photos"), "--image-size", str(SIDE), "--batch-size", "4"]
    options += ["--samples", "24", "--holdout", "0.25", "--evaluations", "1", "--precision", "fp32", "--workers", "0"]
    return ["bootstrap", *options, "--checkpoint-every", "1step", "--out", str(folder / out)]


def begin(folder: Path, name: str, count: int, *accidents: Accident) -> Group:
    return start(count, command, arguments(folder, name), None, accidents, output=folder / f"output-{name}")


def all_said(group: Group) -> str:
    return "".join(group.said(rank) for rank in range(len(group.processes)))


def test_killed__others_end_and_name_the_process(tmp_path: Path) -> None:
    began = time.perf_counter()
    cases = {"one-of-two": (2, 1), "three-of-four": (4, 3), "the-first": (2, 0)}
    groups = {name: begin(tmp_path, name, count, Accident("killed", 8, (rank,))) for name, (count, rank) in cases.items()}
    for name, (count, rank) in cases.items():
        codes = groups[name].join()
        assert codes == [-9 if other == rank else 1 for other in range(count)], all_said(groups[name])
        said = all_said(groups[name])
        assert said.count(f"Process {rank} of {count} was killed") == 1
        assert said.count("sparseformers resume") == 1
        assert "Traceback" not in said
        assert (tmp_path / name / "train.log").read_text(encoding="utf-8").count(f"Process {rank} of {count} was killed") == 1
    assert time.perf_counter() - began < LONGEST


def test_error__is_said_once_by_the_first_process(tmp_path: Path) -> None:
    alone = begin(tmp_path, "alone", 2, Accident("error", 8, (1,)))
    together = begin(tmp_path, "together", 2, Accident("error", 8, (0, 1)))
    bug = begin(tmp_path, "bug", 2, Accident("bug", 8, (1,)))

    assert alone.join() == [1, 2], all_said(alone)
    assert alone.said(0).count("Process 1 of 2 stopped: The photographs are gone.") == 1
    assert alone.said(0).count("Bring them back.") == 1
    assert alone.said(1) == ""
    assert "stopped: ProcessEndedError: Process 1 of 2 stopped: The photographs are gone." in log(tmp_path / "alone")

    assert together.join() == [2, 2]
    assert all_said(together).count("The photographs are gone.") == 1
    assert "Process" not in all_said(together)

    assert bug.join() == [1, 1]
    assert bug.said(0).count("Process 1 of 2 stopped: ValueError: no such thing") == 1
    assert "Traceback" not in all_said(bug)
    assert "process 1: traceback" in log(tmp_path / "bug")
    assert 'raise ValueError("no such thing")' in log(tmp_path / "bug")


def log(run: Path) -> str:
    return (run / "train.log").read_text(encoding="utf-8")


def test_killed__a_process_that_hangs_is_ended(tmp_path: Path) -> None:
    began = time.perf_counter()
    group = begin(tmp_path, "run", 2, Accident("killed", 8, (1,)), Accident("hangs", 8, (0,)))
    assert group.join() == [1, -9]
    assert group.said(0).count("Process 1 of 2 was killed") == 1
    assert "Process 1 of 2 was killed" in log(tmp_path / "run")
    assert time.perf_counter() - began < LONGEST
