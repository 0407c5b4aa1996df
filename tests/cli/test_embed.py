"""``sparseformers embed`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import sparseformers
from sparseformers.cli.embed import Embed
from sparseformers.cli.main import main
from sparseformers.embedding import run
from tests.embedding.small import contents, giant_png, read, student, write_shard
from tests.tiny import SIDE, write_images, write_teacher

FAST = ["--precision", "fp32", "--workers", "0"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    sparseformers.save(student(), tmp_path / "model.safetensors")
    return str(tmp_path / "model.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> str:
    write_images(tmp_path / "photos", 5)
    return str(tmp_path / "photos")


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refused command prints; it has to end with code 2 and without a traceback."""
    try:
        code = main(["embed", *arguments])
    except SystemExit as stop:  # of the parser
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in captured.out + captured.err
    return " ".join((captured.out + captured.err).split())


def test_help__shows_examples_and_says_what_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["embed", "--help"])
    assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in ("RUN_OR_MODEL DATA...", "Example: sparseformers embed", "FILE.names.txt", "_skipped.txt", "shard.tar/key.jpg"):
        assert part in said, part


def test_folders_and_shards__with_a_summary_of_what_was_skipped(
    tmp_path: Path, model: str, photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos" / "giant.png").write_bytes(giant_png())
    for number in range(2):
        write_shard(tmp_path / f"{number}.tar", contents(write_images(tmp_path / f"more{number}", 3, seed=number)))
    out = tmp_path / "index.parquet"
    assert main(["embed", model, photos, f"{tmp_path}/{{0..1}}.tar", "--out", str(out), *FAST]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "rows │ 11" in said
    assert "images skipped │ 1, listed in" in said
    assert "images a second" in said
    assert read(out)["names"][4:7] == ["photos/photograph_004.jpg", "0.tar/photograph_000.jpg", "0.tar/photograph_001.jpg"]
    assert read(out)["embedding"].dtype == np.float16


def test_a_teachers_index__with_tokens_in_float32(tmp_path: Path, photos: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, out = write_teacher(tmp_path / "teacher.safetensors"), tmp_path / "index.npy"
    options = ["--image-size", str(SIDE), "--crop", "0.875", "--dtype", "float32", "--tokens", "--json", *FAST]
    assert main(["embed", name, photos, "--out", str(out), *options]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["skipped"], summary["precision"]) == (5, 0, "fp32")
    assert read(out)["embedding"].shape == (5, 64)
    assert read(out)["tokens"].shape == (5, 16, 64)
    assert json.loads(out.with_suffix(".json").read_text())["model"] == name


def test_an_interrupt__says_that_the_same_command_goes_on(
    tmp_path: Path, model: str, photos: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["embed", model, photos, "--out", str(tmp_path / "index"), "--batch-size", "2", "--part-images", "2", *FAST]
    add_part = run._add_part
    calls = 0

    def interrupted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return add_part(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "_add_part", interrupted)
    assert main(command) == 130
    assert "the same command goes on with it" in capsys.readouterr().out
    monkeypatch.undo()
    assert main([*command, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["went_on_from"]) == (5, 2)


def test_bad_input(tmp_path: Path, model: str, photos: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "index.parquet")

    def refused(*changes: str, model: str = model, data: str = photos, out: str = out) -> str:
        return refusal(capsys, model, data, "--out", out, *FAST, *changes)

    assert "'run' is neither a run folder, nor a model file, nor a teacher, nor a released model." in refused(model="run")
    assert "Did you mean 'sf_base_augreg'" in refused(model="sf_base_agreg")
    assert "names no teacher" in refused(model="timm:")
    assert "is not a run of sparseformers" in refused(model=photos)
    assert "does not exist. Did you mean 'photos'?" in refused(data=f"{photos[:-1]}")
    assert "Of the 3 shards" in refused(data=f"{tmp_path}/{{0..2}}.tar")
    assert "does not say what to write" in refused(out=str(tmp_path / "index.csv"))
    assert "does not say what to write" in refused(out="..")
    assert "--batch-size must be at least 1, not 0. Use 1 or more." in refused("--batch-size", "0")
    assert "--crop must be in (0, 1], not 2.0. Use 0.875, for example." in refused("--crop", "2")
    assert "--crop is of teachers" in refused("--crop", "0.5")
    assert "--image-size is of teachers" in refused("--image-size", "64")
    assert "has no regions of interest. Leave out --rois." in refused(
        "--rois", "--image-size", str(SIDE), model=write_teacher(tmp_path / "teacher.safetensors")
    )
    assert "invalid choice" in refused("--dtype", "int8") or "float16" in refused("--dtype", "int8")
    assert "Nothing to embed was given" in refusal(capsys, model, "--out", out)
    assert not list(tmp_path.glob("index*"))
    (tmp_path / "file").write_text("mine")
    assert "cannot be written" in refused(out=str(tmp_path / "file" / "index.parquet"))
    assert main(["embed", model, photos, "--out", out, *FAST]) == 0
    assert "index.parquet' is there already. Choose another --out, or add --overwrite to replace it." in refused()


def test_the_command_is_the_function(model: str, photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = sparseformers.EmbedConfig(model=model, data=(photos,), precision="fp32", workers=0)
    Embed(settings, tmp_path / "command.npy", json=True).run()
    assert json.loads(capsys.readouterr().out)["rows"] == sparseformers.embed(settings, tmp_path / "function.npy").rows
    assert (tmp_path / "command.npy").read_bytes() == (tmp_path / "function.npy").read_bytes()
