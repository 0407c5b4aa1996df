"""What an embedding writes: rows, order, formats, lists of what was skipped."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sparseformers
from sparseformers.data import evaluation_view, read_image
from sparseformers.embedding import embed
from sparseformers.errors import ConfigError, DataError, MissingExtraError, RunError
from sparseformers.inheritance import inherit
from sparseformers.teachers import load_teacher
from tests.embedding.small import OUTPUTS, contents, files_of, giant_png, info_of, read, settings, student, write_shard
from tests.tiny import SIDE, write_images, write_teacher


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos" / "cats", 5)
    write_images(tmp_path / "photos" / "dogs", 4, seed=1)
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def expected(photos: Path) -> dict[str, Any]:
    """Without any of the machinery."""
    paths, network = sorted(photos.rglob("*.jpg")), student()
    view = evaluation_view(network.config.preprocessing)
    with torch.inference_mode():
        output = network(torch.stack([view(read_image(path)) for path in paths]))
    names = [path.relative_to(photos).as_posix() for path in paths]
    return {"names": names, "embedding": output.embedding, "tokens": output.tokens, "rois": output.rois[:, -1]}


@pytest.mark.parametrize("name", OUTPUTS)
def test_rows__are_what_the_model_says_and_only_replaced_when_told(photos: Path, out: Path, name: str) -> None:
    embed(settings(photos, tokens=True, rois=True, dtype="float16"), out / name, model=student())
    rows, truth = read(out / name), expected(photos)
    assert rows["embedding"].dtype == rows["tokens"].dtype == np.float16
    assert rows["rois"].dtype == np.float32
    assert rows["tokens"].shape == (9, 7, 32)  # class token and six latent tokens
    assert rows["rois"].shape == (9, 6, 4)
    np.testing.assert_allclose(rows["tokens"].astype(np.float32), truth["tokens"], atol=5e-3)
    np.testing.assert_allclose(rows["rois"], truth["rois"], atol=1e-5)
    before = files_of(out / name)
    with pytest.raises(RunError, match=r"is there already\. Choose another --out, or add --overwrite"):
        embed(settings(photos), out / name, model=student())
    assert files_of(out / name) == before
    summary = embed(settings(photos), out / name, model=student(), overwrite=True)
    rows = read(out / name)
    assert (summary.rows, summary.skipped, summary.went_on_from) == (9, 0, 0)
    assert rows.keys() == {"names", "embedding"}
    assert rows["names"] == truth["names"]
    assert rows["embedding"].dtype == np.float32
    np.testing.assert_allclose(rows["embedding"], truth["embedding"], atol=1e-5)
    assert not list(out.glob("*.partial"))


@pytest.mark.parametrize("name", OUTPUTS)
def test_maps__of_students_and_teachers_go_along(tmp_path: Path, photos: Path, out: Path, name: str) -> None:
    teacher = load_teacher(write_teacher(tmp_path / "teacher.safetensors"), image_size=SIDE)
    dense = inherit(teacher, tokens=4, dense_layer=-1).student.eval()
    images = torch.stack([evaluation_view(teacher.preprocessing)(read_image(path)) for path in sorted(photos.rglob("*.jpg"))])
    with torch.inference_mode():
        maps = {dense: dense.dense(images), teacher: teacher.embedding_and_tokens(images)[1]}
    for model, wanted in maps.items():
        embed(settings(photos, dense=True), out / name, model=model, overwrite=True)
        rows = read(out / name)
        assert rows["dense"].shape == (9, 16, 64)
        np.testing.assert_allclose(rows["dense"], wanted.flatten(2).mT.numpy(), atol=1e-4)
        assert (info_of(out / name) if name != "index" else {"dense_grid": [4, 4]})["dense_grid"] == [4, 4]
    with pytest.raises(ConfigError, match="has no read-out, so there is no map to keep"):
        embed(settings(photos, dense=True), out / "other.npy", model=student())


def test_a_teacher__gives_its_embedding_and_patch_tokens_but_has_no_rois(tmp_path: Path, photos: Path, out: Path) -> None:
    teacher = load_teacher(write_teacher(tmp_path / "teacher.safetensors"), image_size=SIDE)
    embed(settings(photos, tokens=True), out / "index.npy", model=teacher)
    images = torch.stack([evaluation_view(teacher.preprocessing)(read_image(path)) for path in sorted(photos.rglob("*.jpg"))])
    with torch.inference_mode():
        embedding, tokens = teacher.embedding_and_tokens(images)
    rows = read(out / "index.npy")
    np.testing.assert_allclose(rows["embedding"], embedding.numpy(), atol=1e-5)
    assert rows["tokens"].shape == (9, 16, 64)
    np.testing.assert_allclose(rows["tokens"][:, 5], tokens[:, :, 1, 1].numpy(), atol=1e-4)
    with pytest.raises(ConfigError, match=r"has no regions of interest\. Leave out --rois\."):
        embed(settings(photos, rois=True), out / "other.npy", model=teacher)


def test_model__by_its_file_and_by_a_teachers_name(tmp_path: Path, photos: Path, out: Path) -> None:
    name = write_teacher(tmp_path / "teacher.safetensors")
    student_, _, provenance = inherit(load_teacher(name, image_size=SIDE), tokens=4)
    sparseformers.save(student_, tmp_path / "model.safetensors", provenance=provenance)
    config = {"data": (str(photos),), "precision": "fp32", "workers": 0}
    by_file = sparseformers.EmbedConfig(model=str(tmp_path / "model.safetensors"), **config)  # type: ignore[arg-type]
    by_name = sparseformers.EmbedConfig(model=name, image_size=SIDE, crop=0.5, **config)  # type: ignore[arg-type]
    assert sparseformers.embed(by_file, out / "student.npy").rows == sparseformers.embed(by_name, out / "teacher.npy").rows == 9
    assert read(out / "student.npy")["embedding"].shape == read(out / "teacher.npy")["embedding"].shape == (9, 64)
    assert info_of(out / "teacher.npy")["preprocessing"]["crop"] == 0.5
    assert info_of(out / "teacher.npy")["model"] == name
    assert info_of(out / "student.npy")["fingerprint"] != info_of(out / "teacher.npy")["fingerprint"]


def test_the_order_and_every_byte__are_the_same_with_workers(photos: Path, tmp_path: Path) -> None:
    (photos / "cats" / "broken.jpg").write_bytes(b"nothing")
    shard = write_shard(tmp_path / "more.tar", contents(write_images(tmp_path / "more", 5, seed=3)))
    one, other = (tmp_path / f"out{workers}" / "index.parquet" for workers in (0, 2))
    for workers, out in ((0, one), (2, other)):
        embed(settings(photos, shard, workers=workers), out, model=student())
    assert files_of(one) == files_of(other)
    assert len(read(one)["names"]) == 14


@pytest.mark.parametrize("name", OUTPUTS)
def test_unreadable_images__are_left_out_and_listed_also_all_of_a_part(photos: Path, out: Path, name: str) -> None:
    broken = [f"cats/p{number}.jpg" for number in range(6)]
    for each in broken:
        (photos / each).write_bytes(b"nothing")
    (photos / "dogs" / "empty.png").write_bytes(b"")
    (photos / "giant.png").write_bytes(giant_png())
    if name == "index":
        (out / name).mkdir()  # an empty folder is filled
    summary = embed(settings(photos), out / name, model=student())
    assert (summary.rows, summary.skipped) == (9, 8)
    assert [Path(each).name for each in read(out / name)["names"]] == [f"photograph_{n:03}.jpg" for n in (*range(5), *range(4))]
    assert summary.skipped_list.read_text().splitlines() == [
        "# 8 images could not be read",
        *(f"{each}\tnot an image of a known format" for each in broken),
        "dogs/empty.png\tthe file is empty",
        "giant.png\ttoo large: 13000 x 13000 pixels, at most 150 million",
    ]


def test_shards__give_the_embeddings_of_the_folder(tmp_path: Path, photos: Path, out: Path) -> None:
    for number, folder in enumerate(("cats", "dogs")):
        write_shard(tmp_path / "shards" / f"{number:05}.tar", contents(sorted((photos / folder).iterdir())))
    embed(settings(photos), out / "folder.npy", model=student())
    embed(settings(tmp_path / "shards" / "{00000..00001}.tar"), out / "shards.npy", model=student())
    folder, shards = read(out / "folder.npy"), read(out / "shards.npy")
    places = {"cats": "00000.tar", "dogs": "00001.tar"}
    assert shards["names"] == [f"{places[name.split('/')[0]]}/{name.split('/')[1]}" for name in folder["names"]]
    np.testing.assert_allclose(shards["embedding"], folder["embedding"], atol=1e-5)


def test_names__are_relative_to_what_several_sources_share(tmp_path: Path, photos: Path, out: Path) -> None:
    write_images(tmp_path / "other" / "cats", 1)
    write_shard(tmp_path / "tars" / "a.tar", contents(write_images(tmp_path / "more", 1)))
    data = (photos / "cats", tmp_path / "other", tmp_path / "tars" / "a.tar", photos / "cats" / "photograph_001.jpg")
    embed(settings(*data), out / "index.npy", model=student())
    names = read(out / "index.npy")["names"]
    assert names[:2] == ["photos/cats/photograph_000.jpg", "photos/cats/photograph_001.jpg"]
    assert names[5:] == ["other/cats/photograph_000.jpg", "tars/a.tar/photograph_000.jpg"]


def test_names__that_are_no_text(tmp_path: Path, photos: Path, out: Path) -> None:
    image = next(photos.rglob("*.jpg")).read_bytes()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "two\nlines.jpg").write_bytes(image)
    (tmp_path / "odd" / "caf\udce9.jpg").write_bytes(image)
    embed(settings(tmp_path / "odd"), out / "index.parquet", model=student())
    embed(settings(tmp_path / "odd"), out / "index.npy", model=student())
    assert read(out / "index.parquet")["names"] == ["caf\\xe9.jpg", "two\nlines.jpg"]
    assert read(out / "index.npy")["names"] == ["caf\\\\xe9.jpg", "two\\nlines.jpg"]


def test_outputs_that_cannot_be_made__and_what_is_in_their_place_stays(photos: Path, out: Path) -> None:
    (out / "index").mkdir()
    (out / "index" / "thesis.tex").write_text("mine")
    (out / "photos.npy").mkdir()
    for name, problem in (("index", "holds no embeddings"), ("photos.npy", "is a folder")):
        with pytest.raises(RunError, match=problem):
            embed(settings(photos), out / name, model=student(), overwrite=True)
    assert (out / "index" / "thesis.tex").read_text() == "mine"
    (out / "beside.names.txt").write_text("mine")  # a file beside it counts as the output
    with pytest.raises(RunError, match=r"beside\.names\.txt' is there already"):
        embed(settings(photos), out / "beside.npy", model=student())
    assert (out / "beside.names.txt").read_text() == "mine"
    for name in ("index.csv", "index.parqet", "index.v2"):
        with pytest.raises(ConfigError, match=r"does not say what to write\. Let --out end in \.parquet or \.npy"):
            embed(settings(photos), out / name, model=student())


def test_nothing_to_embed__leaves_nothing_behind(tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"nothing")
    for data, problem in (
        (tmp_path / "empty", r"The folder '.*empty' holds no images\. Images are files that end in \.jpg"),
        (tmp_path / "nowhere", r"nowhere' does not exist\."),
        (tmp_path / "broken", r"None of the 1 images could be read \(a\.jpg: not an image of a known format\)"),
        (write_shard(tmp_path / "empty.tar", {"a.json": b"{}"}), "The shards hold no images"),
        (tmp_path / "gone.tar", r"The shard '.*gone\.tar' is missing\."),
    ):
        with pytest.raises(DataError, match=problem):
            embed(settings(data), out / "index.parquet", model=student())
        assert not list(out.iterdir())


def test_numbers_that_do_not_fit__are_told_with_the_file(photos: Path, out: Path) -> None:
    large = student()
    with torch.no_grad():
        large.cortex.norm.weight.mul_(1e6)  # type: ignore[union-attr, operator]
    problem = r"embedding of 'cats/photograph_000\.jpg' holds .* not finite in float16\. Use --dtype float32"
    with pytest.raises(RunError, match=problem):
        embed(settings(photos, dtype="float16"), out / "index.parquet", model=large)
    assert embed(settings(photos), out / "index.npy", model=large).rows == 9


def test_a_released_model__by_its_name(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = {("sf_base_clip", True): student()}
    monkeypatch.setattr("sparseformers.released.create_model", lambda name, *, pretrained: networks.pop((name, pretrained)))
    embed(dataclasses.replace(settings(photos), model="sf_base_clip"), out / "index.npy")
    assert not networks
    assert info_of(out / "index.npy")["model"] == "sf_base_clip"


def test_without_pyarrow__only_arrays_are_written(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find_spec(name))
    for name in ("index.parquet", "index"):
        with pytest.raises(MissingExtraError, match=r"'pyarrow' is not installed\. .*sparseformers\[embed\]"):
            embed(settings(photos), out / name, model=student())
    assert embed(settings(photos), out / "index.npy", model=student()).rows == 9
