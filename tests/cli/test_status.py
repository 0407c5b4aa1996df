"""``sparseformers status`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparseformers.cli.main import main
from sparseformers.train import RunFolder


def test_status__prints_a_summary_or_json(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(finished.path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for part in (
        "finished",
        "100%, 24 of 24 images",
        "held-out centred cosine",
        "5th percentile",
        "images a second",
        "last checkpoint",
    ):
        assert part in printed, part
    assert "go on with it by" not in printed
    assert main(["status", str(finished.path), "--watch"]) == 0  # there is nothing to wait for
    assert "finished" in capsys.readouterr().out
    assert main(["status", str(finished.path), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["state"], status["samples"], status["resume"]) == ("finished", 24, None)


def test_status__bad_usage(finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(finished.path), "--watch", "--json"]) == 2
    assert "cannot both be had" in capsys.readouterr().err
    assert main(["status", str(tmp_path)]) == 2
    assert "is not a run of sparseformers" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit) as stop:
        main(["status", "--help"])
    assert stop.value.code == 0
    assert "Example: sparseformers status" in " ".join(capsys.readouterr().out.split())
