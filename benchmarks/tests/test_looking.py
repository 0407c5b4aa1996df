import json
from pathlib import Path

import pytest

from benchmarks.commands import main
from benchmarks.looking import MAPS, MERGING, LookingConfig
from sparseformers.errors import ConfigError
from tests.tiny import write_images, write_teacher


def arguments(tmp_path: Path, *more: str) -> list[str]:
    teacher = write_teacher(tmp_path / "teacher.safetensors")
    for number, name in enumerate(("train", "eval")):
        write_images(tmp_path / name, 24, seed=number)
    given = {"teacher": teacher, "data": tmp_path / "train", "eval-data": tmp_path / "eval", "out": tmp_path / "out"}
    given |= {"image-size": 64, "tokens": 10, "samples": 32, "eval-images": 20, "seeds": 1}
    return ["looking", *(str(part) for name, value in given.items() for part in (f"--{name}", value)), *more]


def test_looking__judges_each_row_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path, "--json")) == 0
    figures = json.loads(capsys.readouterr().out)["rows"]
    trained = [(row, samples) for row in MAPS for samples in (0, 32) if (row, samples) != (MERGING, 32)]
    assert [(each["row"], each["samples"]) for each in figures] == trained
    assert {each["judged_by"] for each in figures} == {"eval"}
    assert all(-1 <= each["centred_cosine"] <= 1 for each in figures)
    assert all((each["divergence"] is not None) == (each["row"] == "learnt") for each in figures)
    kept = (tmp_path / "out" / "train.safetensors").read_bytes()
    write_images(tmp_path / "others", 20, seed=2)
    both = ["--eval-data", str(tmp_path / "eval"), str(tmp_path / "others"), "--rows", "grid,oracle,tome", "--samples", "0"]
    assert main(arguments(tmp_path, *both, "--start", "2", "1", "--channels", "16", "--tokens", "8", "--target", "rollout")) == 0
    told = capsys.readouterr()
    assert "the teacher's own attention" in told.out + told.err
    assert "others" in told.out + told.err
    assert (tmp_path / "out" / "train.safetensors").read_bytes() == kept


def test_looking__the_selector_learns_before_along_or_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fitted at the start unless it learns along alone; what it learns along, it learns from the map."""
    found = {}
    for when in ("both", "first", "along"):
        assert main(arguments(tmp_path, "--json", "--rows", "learnt", "--selector", when)) == 0
        found[when] = [row["divergence"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert found["both"][0] == found["first"][0] != found["along"][0]
    assert found["first"][1] != found["both"][1]
    assert found["along"][1] != found["along"][0]


def test_refuses__an_unknown_row_and_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no row 'orakle'") as refused:
        LookingConfig(data=tmp_path, eval_data=(tmp_path,), out=tmp_path, rows="grid,orakle")
    assert "oracle" in refused.value.remedy
