import webbrowser
from pathlib import Path

import pytest

from sparseformers.train import RunFolder
from tests.cli.command import Command
from tests.train.report.parsed import parse


def test_status__prints_a_summary_or_json(finished: RunFolder, command: Command) -> None:
    printed = command("status", finished.path)
    parts = ("finished", "100%, 24 of 24 images", "held-out centred cosine", "5th percentile", "images a second")
    for part in (*parts, "last checkpoint"):
        assert part in printed, part
    assert "go on with it by" not in printed
    assert "finished" in command("status", finished.path, "--watch")  # there is nothing to wait for
    status = command.json("status", finished.path)
    assert (status["state"], status["samples"], status["resume"]) == ("finished", 24, None)


def test_status__bad_usage(finished: RunFolder, tmp_path: Path, command: Command) -> None:
    assert "cannot both be had" in command.refused("status", finished.path, "--watch", "--json")
    assert "is not a run of sparseformers" in command.refused("status", tmp_path)


def test_report__makes_the_page_again_or_in_another_place(run: Path, command: Command, tmp_path: Path) -> None:
    page = run / "report.html"
    page.unlink()
    printed = command("report", run)
    assert f"The report is in {page} ({page.stat().st_size / 1e6:.2f} MB)." in printed
    assert parse(page).all("h1")
    out = tmp_path / "new" / "page.html"
    report = command.json("report", run, "--out", out)
    assert report == {"path": str(out), "bytes": out.stat().st_size, "missing": []}


def test_report__says_what_is_missing(run: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text((run / "config.json").read_text())
    printed = command("report", tmp_path / "begun")
    assert "There are no curves: the run has not written down a figure yet." in printed
    assert "There are no RoIs: the run has not measured yet." in printed


def test_report__opens_the_browser_if_asked(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)))
    assert "No browser could be opened." in command("report", run, "--out", tmp_path / "page.html", "--open")
    assert opened == [(tmp_path / "page.html").as_uri()]


def test_report__bad_usage(run: Path, tmp_path: Path, command: Command) -> None:
    assert "is not a run of sparseformers" in command.refused("report", tmp_path)
    assert "which 'photo.jpg' is not named as" in command.refused("report", run, "--out", "photo.jpg")
    (tmp_path / "file").write_text("")
    unwritable = command.refused("report", run, "--out", tmp_path / "file" / "page.html")
    assert "page.html' cannot be written" in unwritable
    assert "Choose another place with --out." in unwritable
    folder = tmp_path / "folder.html"
    folder.mkdir()
    assert "folder.html' cannot be written (Is a directory)" in command.refused("report", run, "--out", folder)
    assert not list(folder.iterdir())
    (tmp_path / "config.json").write_text("{")
    assert "config.json' cannot be read" in command.refused("report", tmp_path)
