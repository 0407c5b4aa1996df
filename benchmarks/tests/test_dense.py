from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.commands import main
from benchmarks.dense import ROWS, DenseConfig
from sparseformers.errors import ConfigError
from tests.tiny import write_images, write_teacher


def test_dense__judges_each_row_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("train", "eval")):
        write_images(tmp_path / name, 24, seed=number)
    teacher = write_teacher(tmp_path / "teacher.safetensors")
    given = {"teacher": teacher, "data": tmp_path / "train", "eval-data": tmp_path / "eval", "out": tmp_path / "out"}
    given |= {"image-size": 64, "tokens": 4, "samples": 32, "eval-images": 20}
    arguments = ["dense", *(str(part) for name, value in given.items() for part in (f"--{name}", value))]
    assert main([*arguments, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["rows"]
    assert [(each["row"], each["samples"]) for each in figures] == [(row, samples) for row in ROWS for samples in (0, 32)]
    new = [each["dense_cosine"] for each in figures if not each["samples"]]
    assert new == pytest.approx([new[0]] * len(ROWS), abs=1e-5)
    assert figures[-1]["multiply_adds"] > figures[0]["multiply_adds"]
    assert main([*arguments, "--rows", "spread"]) == 0
    told = capsys.readouterr()
    assert ROWS["spread"] in " ".join((told.out + told.err).split())


def test_refuses__an_unknown_row_and_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no row 'spred'") as refused:
        DenseConfig(data=tmp_path, eval_data=tmp_path, out=tmp_path, rows="spred")
    assert "spread" in refused.value.remedy
