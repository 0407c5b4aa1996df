"""``sparseformers visualize`` as a user types it: what is written, what is said, and what is refused before any work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save_file

import sparseformers
from sparseformers.cli.main import main
from sparseformers.figures.run import short_name
from sparseformers.inheritance import inherit
from sparseformers.teachers import load_teacher
from tests.figures.pictures import tiny_student
from tests.released.reference import small_weights
from tests.tiny import SIDE, write_images, write_teacher


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three photographs, a teacher, and students of several kinds."""
    folder = tmp_path_factory.mktemp("visualize")
    write_images(folder / "photos", 3)
    (folder / "runs" / "first").mkdir(parents=True)
    name = write_teacher(folder / "teacher.safetensors")
    made = inherit(
        load_teacher(name, image_size=SIDE), front="focusing", tokens=4, focusing_width=64, channels=8, points=4, iterations=2
    )
    torch.nn.init.normal_(made.student.focusing.layer.adjustment.delta[-1].weight, std=0.05)
    sparseformers.save(made.student, folder / "runs" / "first" / "model.safetensors", provenance=made.provenance)
    sparseformers.save(tiny_student(), folder / "tiny.safetensors")
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a refused command prints; it has to end with code 2 and without a traceback."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # of the parser
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in captured.out + captured.err
    return " ".join((captured.out + captured.err).split())


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved from here on."""
    figures: list[Figure] = []
    monkeypatch.setattr("sparseformers.figures.run.save_figure", lambda figure, path, dpi: figures.append(figure))
    return figures


def headings(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_each_figure_is_drawn_from_a_run(place: Path, tmp_path: Path) -> None:
    for figure in ("models", "iterations", "density", "tokens", "pca"):
        out = tmp_path / f"{figure}.png"
        image = place / "photos" / "photograph_000.jpg"
        arguments = ["visualize", place / "runs" / "first", image, "--figure", figure, "--out", out, "--size", "64"]
        assert main([str(argument) for argument in arguments]) == 0
        with Image.open(out) as image:
            image.load()
            assert min(image.size) > 64


def test_models_of_all_kinds_stand_side_by_side(
    place: Path, tmp_path: Path, fixtures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"model": small_weights(fixtures, "v1")}, tmp_path / "v1.pth")
    save_file(small_weights(fixtures, "bootstrapped_clip"), tmp_path / "clip.safetensors")
    figures = drawn(monkeypatch)
    beside = [part for name in ("v1.pth", "clip.safetensors") for part in ("--beside", str(tmp_path / name))]
    image = place / "photos" / "photograph_000.jpg"
    assert main(["visualize", str(place / "runs" / "first"), str(image), "--out", str(tmp_path / "a.png"), *beside]) == 0
    (figure,) = figures
    assert [name for name in ("first", "v1", "clip") if name in headings(figure)] == ["first", "v1", "clip"]
    assert headings(figure).count("Sampling points, last stage") == 3
    assert len(figure.axes) == 1 + 3 + 4 + 4  # the input, then stages and points of each; the third stage of RUN is its last


@pytest.mark.parametrize(("view", "shape"), [("whole", (72, 96)), ("own", (72, 96))])
def test_photographs_keep_their_shape(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: str, shape: tuple[int, int]
) -> None:
    figures = drawn(monkeypatch)
    image = place / "photos" / "photograph_000.jpg"
    arguments = ["visualize", place / "tiny.safetensors", image, "--view", view, "--out", tmp_path / "a.png", "--stages", "-1"]
    assert main([str(argument) for argument in arguments]) == 0
    assert len(figures[0].axes) == 3
    for axes in figures[0].axes:
        assert axes.images[0].get_array().shape == (*shape, 3)
        assert axes.images[0].get_extent() == [0, shape[1], shape[0], 0]


def test_animation_without_a_figure(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, out = place / "photos" / "photograph_000.jpg", tmp_path / "glide.webp"
    assert main(["visualize", str(place / "tiny.safetensors"), str(image), "--animate", str(out), "--size", "64", "--json"]) == 0
    with Image.open(out) as animation:
        assert animation.n_frames > 4  # frames that are the same to the last pixel are stored once
    assert json.loads(capsys.readouterr().out) == {"drawn": 1, "written": [str(out)], "skipped": {}}
    assert [entry.name for entry in tmp_path.iterdir()] == ["glide.webp"]


def test_a_teacher_from_elsewhere(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, image, out = place / "runs" / "first", place / "photos" / "photograph_000.jpg", tmp_path / "a.png"
    teacher, moved = place / "teacher.safetensors", tmp_path / "moved.safetensors"
    figures = drawn(monkeypatch)
    teacher.rename(moved)
    try:
        said = refused(capsys, "visualize", run, image, "--figure", "density", "--out", out)
        assert "cannot be loaded from where it was" in said
        assert "Say where it is now with --teacher." in said
        assert figures == []
        named = f"timm:test_vit@{moved}"
        assert main([str(part) for part in ("visualize", run, image, "--figure", "pca", "--out", out, "--teacher", named)]) == 0
        assert len(figures) == 1
    finally:
        moved.rename(teacher)
    other = write_teacher(tmp_path / "other.safetensors", classes=4)
    said = refused(capsys, "visualize", run, image, "--figure", "density", "--out", out, "--teacher", other)
    assert "are not those that the student was made from" in said


def test_a_model_that_does_not_say_its_teacher(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = drawn(monkeypatch)
    asked = ["visualize", place / "tiny.safetensors", place / "photos", "--figure", "density", "--out", tmp_path / "a.png"]
    assert "does not say which teacher it was made from" in refused(capsys, *asked)
    named = write_teacher(tmp_path / "teacher.safetensors")
    assert main([str(part) for part in (*asked, "--teacher", named)]) == 0
    assert len(figures) == 1


class TestBadImages:
    def test_an_unreadable_one_is_named_and_the_others_are_drawn(
        self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        figures = drawn(monkeypatch)
        (tmp_path / "broken.jpg").write_bytes(b"nothing")
        asked = ["visualize", place / "tiny.safetensors", place / "photos", tmp_path / "broken.jpg", "--out", tmp_path / "a.png"]
        said = refused(capsys, *asked)
        assert "1 of 4 images cannot be read" in said
        assert "broken.jpg (not an image of a known format). The others are drawn." in said
        assert f"3 images drawn to {tmp_path / 'a.png'}" in said
        assert len([title for title in headings(figures[0]) if title.startswith("photograph_")]) == 3

    def test_none_can_be_read(self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "broken.jpg").write_bytes(b"nothing")
        said = refused(
            capsys,
            "visualize",
            place / "tiny.safetensors",
            tmp_path / "broken.jpg",
            "--out",
            tmp_path / "a.png",
            "--figure",
            "iterations",
        )
        assert "None of the 1 images can be read: not an image of a known format." in said
        assert not (tmp_path / "a.png").exists()

    def test_none_is_named(self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "No image was named" in refused(capsys, "visualize", place / "tiny.safetensors", "--out", tmp_path / "a.png")

    def test_a_folder_without_any(self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = refused(capsys, "visualize", place / "tiny.safetensors", tmp_path, "--out", tmp_path / "a.png")
        assert "holds no images" in said

    def test_more_than_a_sheet_takes(self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for number in range(65):
            Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(tmp_path / f"{number}.png")
        said = refused(capsys, "visualize", place / "tiny.safetensors", tmp_path, "--out", tmp_path / "a.pdf")
        assert "A sheet takes at most 64 images, not 65" in said


class TestBadModels:
    @pytest.mark.parametrize("kind", ["teacher", "timm", "numbers", "missing", "misspelt", "folder"])
    def test_a_model_without_rois(self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
        torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
        model, expected = {
            "teacher": (place / "teacher.safetensors", "is no SparseFormer and has no regions of interest"),
            "timm": ("timm:vit_base_patch16_224.augreg_in21k_ft_in1k", "is a teacher, and has no regions of interest"),
            "numbers": (tmp_path / "linear.pth", "is no SparseFormer and has no regions of interest"),
            "missing": (tmp_path / "none.safetensors", "There is no run folder, model file or released model"),
            "misspelt": ("sf_v1_tinny", "Did you mean 'sf_v1_tiny'"),
            "folder": (place / "photos", "is not a run of sparseformers"),
        }[kind]
        assert expected in refused(capsys, "visualize", model, place / "photos", "--out", tmp_path / "a.png")

    def test_released_weights_that_cannot_be_fetched(
        self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SPARSEFORMERS_CACHE", str(tmp_path))
        # A network that is not there: nothing listens at this port.
        for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, "http://127.0.0.1:9")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        said = refused(
            capsys,
            "visualize",
            place / "tiny.safetensors",
            place / "photos",
            "--beside",
            "sf_v1_tiny",
            "--out",
            tmp_path / "a.png",
        )
        assert "The released weights of 'sf_v1_tiny' could not be fetched" in said
        assert "fetch that file by hand and put it at" in said

    def test_the_same_model_twice(self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        model = place / "tiny.safetensors"
        assert "is named twice" in refused(
            capsys, "visualize", model, place / "photos", "--beside", model, "--beside", model, "--out", tmp_path / "a.png"
        )

    def test_nothing_moves(self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        made = inherit(load_teacher(f"timm:test_vit@{place / 'teacher.safetensors'}", image_size=SIDE), tokens=4)
        sparseformers.save(made.student, tmp_path / "still.safetensors")
        said = refused(capsys, "visualize", tmp_path / "still.safetensors", place / "photos", "--animate", tmp_path / "a.gif")
        assert "there is nothing to animate" in said


class TestBadTargets:
    """All of them are refused before the model is even opened: there is none."""

    def refused_target(self, capsys: pytest.CaptureFixture[str], place: Path, *options: object) -> str:
        return refused(capsys, "visualize", place / "no_model.safetensors", place / "photos", *options)

    def test_a_suffix_that_is_unknown(self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = self.refused_target(capsys, place, "--out", tmp_path / "a.xyz")
        assert "Figures cannot be written as '.xyz'. Use one of: .png, .pdf, .svg, .jpg, .jpeg, .webp." in said
        said = self.refused_target(capsys, place, "--animate", tmp_path / "a.png")
        assert "Figures cannot be written as '.png'. Use one of: .gif, .webp, .mp4." in said

    def test_a_place_that_cannot_be_written(self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "file").write_text("something")
        (tmp_path / "folder.png").mkdir()
        for target in (tmp_path / "file" / "a.png", tmp_path / "folder.png", Path("/proc/none/a.png")):
            said = self.refused_target(capsys, place, "--out", target)
            assert f"The file '{target}' cannot be written" in said
            assert "Choose a place where you may write." in said
        assert "cannot be written" in self.refused_target(capsys, place, "--animate", tmp_path / "file" / "a.gif")

    def test_nothing_is_left_of_the_attempt(self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.refused_target(capsys, place, "--out", tmp_path / "new" / "a.png")  # for its model
        assert list(tmp_path.iterdir()) == []

    def test_one_of_the_images(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        image = place / "photos" / "photograph_000.jpg"
        before = image.read_bytes()
        assert "is one of the images to draw" in self.refused_target(capsys, place, "--out", image)
        assert image.read_bytes() == before

    def test_none_or_the_same(self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "There is nothing to write" in self.refused_target(capsys, place)
        target = tmp_path / "a.webp"
        assert "cannot be the same file" in self.refused_target(capsys, place, "--out", target, "--animate", target)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (["--figure", "iterations", "--beside", "x"], "--beside goes with --figure models, not with iterations"),
            (["--figure", "pca", "--stages", "1"], "--stages goes with --figure models, not with pca"),
            (["--teacher", "bundled"], "--teacher goes with --figure density or pca, not with models"),
            (["--size", "3"], "cannot have a --size of 3 pixels"),
            (["--figure", "photo"], "photo"),
        ],
    )
    def test_options_that_do_not_fit(
        self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
    ) -> None:
        assert expected in self.refused_target(capsys, place, "--out", tmp_path / "a.png", *options)


def test_short_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    (run / "model.safetensors").touch()
    (tmp_path / "mine.safetensors").touch()
    names = ["runs/first", "runs/first/", "runs/first/model.safetensors", "mine.safetensors", "sf_v1_tiny"]
    assert [short_name(name) for name in names] == ["first", "first", "first", "mine", "sf_v1_tiny"]


@pytest.mark.slow
def test_no_display_is_no_matter(place: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"MPLBACKEND": "TkAgg", "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [place / "tiny.safetensors", place / "photos" / "photograph_000.jpg", "--out", tmp_path / "a.png"]
    done = subprocess.run(
        [sys.executable, "-m", "sparseformers", "visualize", *map(str, arguments), "--size", "64"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.png").is_file()
