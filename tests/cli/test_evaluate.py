"""``evaluate`` as a user types it, with ``--shifts``, ``--limit``, ``--views`` and ``--tokens``."""

from pathlib import Path
from typing import Any

import pytest

import sparseformers
from sparseformers.evaluation.embeddings import thinned
from tests.cli.command import Command, save_student
from tests.model.small import small_model
from tests.tiny import write_images


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save_student(tmp_path, front="grid")


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Images to learn from, and two to be judged on, of as many classes as the teacher's classifier knows."""
    for number, name in enumerate(("apple", "bird", "cup")):
        for split, count in (("train", 6), ("test", 2)):
            write_images(tmp_path / "classes" / split / name, count, seed=10 * number + count)
    return tmp_path / "classes"


def evaluated(command: Command, model: str, data: Path, *options: object) -> Any:
    return command.json("evaluate", model, "--data", data, "--precision", "fp32", *options)


def test_evaluate__class_folders_give_neighbour_and_classifier_accuracy(model: str, classes: Path, command: Command) -> None:
    figures = evaluated(command, model, classes)
    assert figures["alignment"]["images"] == 6
    for key in ("knn_teacher", "knn_student", "knn_drop_in", "classifier_teacher", "classifier_student"):
        assert 0 <= figures[key] <= 1, key


def test_evaluate__lists_what_it_skips(model: str, photos: Path, command: Command) -> None:
    (photos / "broken.png").write_bytes(b"nothing")
    assert "broken.png" in command("evaluate", model, "--data", photos)


@pytest.mark.parametrize(("options", "images"), [(["--views", 3], 30), (["--limit", 3], 3), ([], 10)])
def test_evaluate__views_or_some_images(model: str, photos: Path, command: Command, options: list[object], images: int) -> None:
    figures = evaluated(command, model, photos, *options)
    assert (figures["alignment"]["images"], figures["knn_student"]) == (images, None)


def test_tokens__more_of_them_come_nearer_to_the_teacher(model: str, photos: Path, command: Command) -> None:
    own, the_same, all_patches = (
        evaluated(command, model, photos, *tokens)["alignment"] for tokens in ([], ["--tokens", 4], ["--tokens", 16])
    )
    assert own == the_same
    assert all_patches["centred_cosine"] > own["centred_cosine"]


def test_shifts__tells_where_the_student_loses(model: str, photos: Path, command: Command) -> None:
    (photos / "broken.png").write_bytes(b"nothing")
    printed = command("evaluate", model, "--data", photos, "--shifts", "--precision", "fp32")
    assert "…" not in printed  # nothing is cut off in a narrow terminal
    for part in ("blur 2%", "1/3 in a scene", "448 px", "4:3", "photograph_000.jpg", "10 images, 1 unreadable skipped"):
        assert part in printed, part
    assert printed.count("skipped: ") == 1
    assert "broken.png" in printed


def test_shifts__json(model: str, photos: Path, command: Command) -> None:
    figures = evaluated(command, model, photos, "--shifts", "--limit", 3)
    assert (figures["images"], figures["skipped_images"], figures["rows"][0]["condition"]) == (3, [], "clean")
    # It was not trained, so it is the low-resolution teacher with as many tokens.
    for row in figures["rows"]:
        assert row["student"]["same_image"] == pytest.approx(row["low_resolution"]["same_image"], abs=0.02)
        assert row["student"]["top1"] is None
    assert [Path(image["path"]).name for image in figures["worst"]]


def test_shifts__class_folders_give_top1_through_the_teachers_classifier(model: str, classes: Path, command: Command) -> None:
    figures = evaluated(command, model, classes, "--shifts")
    assert figures["images"] == 6
    for row in figures["rows"]:
        for network in ("student", "teacher", "low_resolution"):
            assert row[network]["top1"] * 6 == pytest.approx(round(row[network]["top1"] * 6))
    # Of classes that are not the classifier's there is no top-1.
    write_images(classes / "train" / "door", 1, seed=40)
    write_images(classes / "test" / "door", 1, seed=41)
    assert evaluated(command, model, classes, "--shifts", "--limit", 2)["rows"][0]["teacher"]["top1"] is None


def test_thinned__draws_evenly() -> None:
    assert thinned(range(10), 5) == [0, 2, 4, 6, 8]
    assert thinned(range(10), 3) == [0, 3, 6]
    assert thinned(range(3), 0) == thinned(range(3), 7) == [0, 1, 2]


def test_bad_input(model: str, photos: Path, tmp_path: Path, command: Command) -> None:
    def refused(*changes: object, run: object = model, data: Path = photos) -> str:
        return command.refused("evaluate", run, "--data", data, *changes)

    assert "--tokens must be at least 1, not 0" in refused("--tokens", 0)
    assert "--shifts measures at the student's own number of tokens" in refused("--tokens", 9, "--shifts")
    assert "cannot go with --views. Leave one of them out." in refused("--shifts", "--views", 2)
    assert "on --limit 1 images. Give 2 or more, or 0 for all." in refused("--shifts", "--limit", 1)
    (tmp_path / "empty").mkdir()
    assert "holds no images. Images are files that end in" in refused("--shifts", data=tmp_path / "empty")
    sparseformers.save(small_model(), tmp_path / "orphan.safetensors")
    said = refused("--shifts", run=tmp_path / "orphan.safetensors")
    assert "does not say which teacher it was made from. Use a model of a bootstrapping run, or name one" in said
    for path in photos.iterdir():
        path.write_bytes(b"nothing")
    assert "on two images or more, not on 0. Evaluate on a folder with more readable images." in refused("--shifts")
    fixed = save_student(tmp_path, front="focusing", focusing_width=64)
    assert "has 4 tokens and no other number" in refused("--tokens", 9, run=fixed)
