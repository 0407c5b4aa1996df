"""A whole benchmark of a tiny student, with a small product in the place of the machine's large one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.speed import SpeedConfig, measure_speed
from benchmarks.speed.backends import InPyTorch
from benchmarks.speed.machine import product
from sparseformers.errors import ConfigError
from tests.tiny import write_images

SHORT = SpeedConfig(
    models=("student", "teacher"), batch=(1, 3), backend=("eager",), precision=("fp32", "int8"), turns=3, memory=False
)


@pytest.fixture(autouse=True)
def _small_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.speed.run.product", lambda side: product(64))


def test_measure_speed__measures_all_in_turns_and_says_what_it_leaves_out(tiny_student: Path) -> None:
    threads = torch.get_num_threads()
    report = measure_speed(str(tiny_student), SHORT)
    assert [(row.batch, *row.route) for row in report.rows] == [
        (batch, model, "fp32", "eager") for batch in (1, 3) for model in ("student", "teacher")
    ]
    for row in report.rows:
        assert len(row.seconds) == 3
        assert row.cosine is not None
        assert row.cosine.least == pytest.approx(1, abs=1e-5)
        assert row.floor is not None
        assert row.share is not None
        assert row.share > 0
        assert row.peak_bytes is None
    assert report.batches == (1, 3)
    assert report.left_out == ("int8, eager: PyTorch itself has no int8 layers any more; onnxruntime and openvino have",)
    assert not report.circumstances.photographs
    assert torch.get_num_threads() == threads


def test_measure_speed__judges_a_route_by_the_work_that_it_does(tiny_student: Path) -> None:
    report = measure_speed(str(tiny_student), replace(SHORT, batch=(2,), backend=("eager", "packed"), precision=("fp32",)))
    eager, packed = (report.find(2, model="student", backends=(backend,))[0] for backend in ("eager", "packed"))
    student = next(model for model in report.models if model.name == "student")
    assert packed.multiply_adds < eager.multiply_adds == student.cost.multiply_adds
    machine = report.machines[2]
    for row in (eager, packed):
        assert row.floor is not None
        assert row.floor.by == "multiply-adds"
        assert row.floor.seconds == 2 * row.multiply_adds / (machine.rate("fp32") or 0)
        assert row.share == machine.share("fp32", 2 * row.multiply_adds, row.seconds)


def test_measure_speed__compares_on_photographs(tiny_student: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 6)
    settings = replace(SHORT, batch=(4,), precision=("fp32",), models=("student",), images=tmp_path / "photos")
    report = measure_speed(str(tiny_student), settings)
    assert report.circumstances.images == "3 photographs"  # the other half is for calibration
    assert report.rows[0].cosine is not None
    assert report.rows[0].cosine.mean == pytest.approx(1, abs=1e-5)


def test_measure_speed__of_nothing_that_can_be_run(tiny_student: Path) -> None:
    with pytest.raises(ConfigError, match=r"Nothing can be measured \(int8, eager: PyTorch"):
        measure_speed(str(tiny_student), replace(SHORT, precision=("int8",)))


def test_measure_speed__leaves_out_what_fails(tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = InPyTorch.open

    def fails_at_three(self: InPyTorch, batch: int) -> object:
        if batch == 3:
            raise RuntimeError("three are\ntoo many")
        return opened(self, batch)

    monkeypatch.setattr(InPyTorch, "open", fails_at_three)
    with pytest.raises(ConfigError, match="RuntimeError: three are too many"):
        measure_speed(str(tiny_student), replace(SHORT, precision=("fp32",)))


def test_measure_speed__keeps_what_was_timed_where_a_profiler_fails(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no profiler here")

    monkeypatch.setattr(InPyTorch, "profile", fails)
    report = measure_speed(str(tiny_student), replace(SHORT, batch=(2,), precision=("fp32",), trace=tmp_path / "traces"))
    assert [row.profile for row in report.rows] == [None, None]
    assert "the trace of student, fp32, eager, batch 2: RuntimeError: no profiler here" in report.left_out


def test_measure_speed__a_folder_for_traces_that_cannot_be_made(tiny_student: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--trace cannot be made \(Not a directory\)"):
        measure_speed(str(tiny_student), replace(SHORT, trace=tmp_path / "file" / "traces"))
