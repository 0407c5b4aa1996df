"""``sparseformers report`` as a user types it."""

from __future__ import annotations

import json
import shutil
import webbrowser
from pathlib import Path

import pytest

from sparseformers.cli.main import main
from sparseformers.train import RunFolder
from tests.train.report.parsed import parse


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> Path:
    shutil.copytree(finished.path, tmp_path / "run")
    return tmp_path / "run"


def test_report__makes_the_page_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    size = (run / "report.html").stat().st_size
    assert f"The report is in {run / 'report.html'} ({size / 1e6:.2f} MB)." in " ".join(capsys.readouterr().out.split())
    assert parse(run / "report.html").all("h1")


def test_report__json_and_another_place(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "page.html"
    assert main(["report", str(run), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(out), "bytes": out.stat().st_size, "missing": []}


def test_report__says_what_is_missing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text((run / "config.json").read_text())
    assert main(["report", str(tmp_path / "begun")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "There are no curves: the run has not written down a figure yet." in printed
    assert "There are no RoIs: the run has not measured yet." in printed


def test_report__opens_the_browser_if_asked(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)))
    assert main(["report", str(run), "--out", str(tmp_path / "page.html"), "--open"]) == 0
    assert opened == [(tmp_path / "page.html").as_uri()]
    assert "No browser could be opened." in capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["report", *arguments]) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    return " ".join(printed.split())


def test_report__bad_usage(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a run of sparseformers" in refused(capsys, str(tmp_path))
    assert "which 'photo.jpg' is not named as" in refused(capsys, str(run), "--out", "photo.jpg")
    (tmp_path / "file").write_text("")
    unwritable = refused(capsys, str(run), "--out", str(tmp_path / "file" / "page.html"))
    assert "page.html' cannot be written" in unwritable
    assert "Choose another place with --out." in unwritable
    (tmp_path / "folder.html").mkdir()
    assert "folder.html' cannot be written (Is a directory)" in refused(capsys, str(run), "--out", str(tmp_path / "folder.html"))
    assert not list((tmp_path / "folder.html").iterdir())
    (tmp_path / "config.json").write_text("{")
    assert "config.json' cannot be read" in refused(capsys, str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        main(["report", "--help"])
    assert stop.value.code == 0
    assert "Example: sparseformers report" in " ".join(capsys.readouterr().out.split())
