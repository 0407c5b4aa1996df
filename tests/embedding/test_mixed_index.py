"""The example of a mixed index, on figures that can be worked out by hand."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from sparseformers.embedding.formats import ParquetFile, Rows

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mixed_index.py"


def table(path: Path, names: list[str], embedding: np.ndarray) -> str:
    ParquetFile(path).write_part(path, Rows(tuple(names), {"embedding": embedding.astype(np.float16)}), {})
    return str(path)


def turned(degrees: float | np.ndarray) -> np.ndarray:
    """Unit vectors at these angles."""
    angles = np.radians(np.atleast_1d(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["mixed_index.py", *arguments])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_recall_of_turned_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"train/{'near' if row < 12 else 'far'}/{row}.jpg" for row in range(40)]
    index = table(tmp_path / "index.parquet", names, 3 * turned(np.arange(40.0)))
    teacher = table(tmp_path / "teacher.parquet", ["near/a.jpg", "far/b.jpg"], turned(np.array([4.5, 24.5])))
    student = table(tmp_path / "student.parquet", ["near/a.jpg", "far/b.jpg"], turned(np.array([4.5 + 3, 24.5 - 20])))
    lines = printed(monkeypatch, capsys, index, "--teacher", teacher, "--student", student)
    assert lines[0] == "2 queries, 40 images in the index; the teacher's ten among 10 results"
    assert lines[2].split() == ["teacher.parquet", "100.0%", "100.0%"]
    assert lines[3].split() == ["student.parquet", "35.0%", "50.0%"]  # 7 of 10 and none; the second finds only "near"

    more = printed(monkeypatch, capsys, index, "--teacher", teacher, "--student", student, "--among", "14")
    assert more[3].split() == ["student.parquet", "45.0%", "100.0%"]  # rows 1 to 14 have 9 of 0 to 9


def test_queries_of_other_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    index = table(tmp_path / "index.parquet", [f"a/{row}.jpg" for row in range(12)], turned(np.arange(12.0)))
    other = table(tmp_path / "other.parquet", ["b/0.jpg"], turned(3))
    teacher = table(tmp_path / "teacher.parquet", ["a/0.jpg"], turned(3))
    with pytest.raises(SystemExit, match="are not of the same images"):
        printed(monkeypatch, capsys, index, "--teacher", teacher, "--student", other)
