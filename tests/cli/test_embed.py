import json
from pathlib import Path

import numpy as np
import pytest

import sparseformers
from sparseformers.embedding import run
from tests.cli.command import Command
from tests.embedding.small import contents, giant_png, read, student, write_shard
from tests.tiny import SIDE, write_images

FAST = ["--precision", "fp32", "--workers", "0"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    sparseformers.save(student(), tmp_path / "model.safetensors")
    return str(tmp_path / "model.safetensors")


def test_folders_and_shards__with_what_was_skipped(tmp_path: Path, model: str, photos: Path, command: Command) -> None:
    (photos / "giant.png").write_bytes(giant_png())
    for number in range(2):
        write_shard(tmp_path / f"{number}.tar", contents(write_images(tmp_path / f"more{number}", 3, seed=number)))
    out = tmp_path / "index.parquet"
    said = command("embed", model, photos, f"{tmp_path}/{{0..1}}.tar", "--out", out, *FAST)
    assert "rows 16" in said
    assert "images skipped 1, listed in" in said
    assert "images a second" in said
    assert read(out)["names"][9:12] == ["photos/photograph_009.jpg", "0.tar/photograph_000.jpg", "0.tar/photograph_001.jpg"]
    assert read(out)["embedding"].dtype == np.float16


def test_a_teachers_index__with_tokens_in_float32(tmp_path: Path, teacher: str, photos: Path, command: Command) -> None:
    out = tmp_path / "index.npy"
    options = ["--image-size", SIDE, "--crop", "0.875", "--dtype", "float32", "--tokens", *FAST]
    summary = command.json("embed", teacher, photos, "--out", out, *options)
    assert (summary["rows"], summary["skipped"], summary["precision"]) == (10, 0, "fp32")
    assert read(out)["embedding"].shape == (10, 64)
    assert read(out)["tokens"].shape == (10, 16, 64)
    assert json.loads(out.with_suffix(".json").read_text())["model"] == teacher


def test_an_interrupt__can_be_gone_on_from(
    tmp_path: Path, model: str, photos: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["embed", model, photos, "--out", tmp_path / "index", "--batch-size", 2, "--part-images", 2, *FAST]
    add_part, calls = run._add_part, iter(range(9))

    def interrupted(*arguments: object) -> object:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return add_part(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(run, "_add_part", interrupted)
        assert "the same command goes on with it" in command(*words, code=130)
    summary = command.json(*words)
    assert (summary["rows"], summary["went_on_from"]) == (10, 2)


def test_bad_input(tmp_path: Path, model: str, teacher: str, photos: Path, command: Command) -> None:
    out = tmp_path / "index.parquet"

    def refused(*changes: object, model: object = model, data: object = photos, out: object = out) -> str:
        return command.refused("embed", model, data, "--out", out, *FAST, *changes)

    assert "There is no run folder, model file or released model 'run'." in refused(model="run")
    assert "Did you mean 'sf_base_augreg'" in refused(model="sf_base_agreg")
    assert "names no teacher" in refused(model="timm:")
    assert "is not a run of sparseformers" in refused(model=photos)
    assert "does not exist. Did you mean 'photos'?" in refused(data=tmp_path / "photo")
    assert "Of the 3 shards" in refused(data=f"{tmp_path}/{{0..2}}.tar")
    for place in (tmp_path / "index.csv", ".."):
        assert "does not say what to write" in refused(out=place)
    assert "--batch-size must be at least 1, not 0. Use 1 or more." in refused("--batch-size", 0)
    assert "--crop must be in (0, 1], not 2.0. Use 0.875, for example." in refused("--crop", 2)
    assert "--crop is of teachers" in refused("--crop", 0.5)
    assert "--image-size is of teachers" in refused("--image-size", 64)
    assert "has no regions of interest. Leave out --rois." in refused("--rois", "--image-size", SIDE, model=teacher)
    assert "float16" in refused("--dtype", "int8")
    assert "Nothing to embed was given" in command.refused("embed", model, "--out", out)
    assert not list(tmp_path.glob("index*"))
    (tmp_path / "file").write_text("mine")
    assert "cannot be written" in refused(out=tmp_path / "file" / "index.parquet")
    command("embed", model, photos, "--out", out, *FAST)
    assert "index.parquet' is there already. Choose another --out, or add --overwrite to replace it." in refused()
