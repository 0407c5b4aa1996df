from pathlib import Path

import pytest
import torch

from benchmarks.gpu_check import ON_CPU, Check, main, run


def test_without_a_device__one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "no CUDA device" in captured.err


def test_a_step_that_fails__stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Check) -> str:
        raise RuntimeError("no room")

    monkeypatch.setattr(Check, "steps", lambda self: {"first": lambda: fails(self), "second": lambda: "42 images/s"})
    (first, line), (second, other) = run(ON_CPU, tmp_path)
    assert (first, second) == (False, True)
    assert line.startswith("FAILED")
    assert line.endswith("RuntimeError: no room")
    assert other.startswith("ok")
    assert main(["--cpu"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 step failed")


@pytest.mark.slow
def test_on_the_cpu__every_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cpu"]) == 0
    printed = capsys.readouterr().out
    assert "tensors equal to the last bit" in printed
    assert len(printed.splitlines()) <= 60
    for row in ("student, eager", "student, compiled", "teacher, eager", "teacher, compiled"):
        assert printed.count(row) == len(ON_CPU.batches), row
