"""``sparseformers visualize`` as a user types it: what is written, what is said, and what is refused before any work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save_file

import sparseformers
from sparseformers.figures.run import short_name
from sparseformers.inheritance import inherit
from sparseformers.teachers import load_teacher
from tests.cli.command import Command, save_student
from tests.figures.pictures import headings, tiny_student
from tests.released.reference import small_weights
from tests.tiny import SIDE, write_images, write_teacher


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three photographs, a teacher, and students of several kinds."""
    folder = tmp_path_factory.mktemp("visualize")
    write_images(folder / "photos", 3)
    (folder / "runs" / "first").mkdir(parents=True)
    name = write_teacher(folder / "teacher.safetensors")
    sizes = {"focusing_width": 64, "channels": 8, "points": 4, "iterations": 2}
    made = inherit(load_teacher(name, image_size=SIDE), front="focusing", tokens=4, **sizes)  # type: ignore[arg-type]
    torch.nn.init.normal_(made.student.focusing.layer.adjustment.delta[-1].weight, std=0.05)
    sparseformers.save(made.student, folder / "runs" / "first" / "model.safetensors", provenance=made.provenance)
    sparseformers.save(tiny_student(), folder / "tiny.safetensors")
    return folder


@pytest.fixture
def photograph(place: Path) -> Path:
    return place / "photos" / "photograph_000.jpg"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would have been saved."""
    figures: list[Figure] = []
    monkeypatch.setattr("sparseformers.figures.run.save_figure", lambda figure, path, dpi: figures.append(figure))
    return figures


@pytest.mark.parametrize("figure", ["models", "iterations", "density", "tokens", "pca"])
def test_each_figure_is_drawn_from_a_run(place: Path, photograph: Path, tmp_path: Path, command: Command, figure: str) -> None:
    out = tmp_path / "figure.png"
    command("visualize", place / "runs" / "first", photograph, "--figure", figure, "--out", out, "--size", 64)
    with Image.open(out) as image:
        image.load()
        assert min(image.size) > 64


def test_front_with_a_map(place: Path, photograph: Path, tmp_path: Path, drawn: list[Figure], command: Command) -> None:
    made = inherit(load_teacher(f"timm:test_vit@{place / 'teacher.safetensors'}", image_size=SIDE), front="mixed", tokens=10)
    model = tmp_path / "mixed.safetensors"
    sparseformers.save(made.student, model, provenance=made.provenance)
    for figure in ("models", "iterations", "map", "density", "tokens", "pca"):
        command("visualize", model, photograph, "--figure", figure, "--out", tmp_path / "a.png")
    assert len(drawn) == 6
    assert "The glance" in headings(drawn[2])
    command("visualize", model, photograph, "--animate", tmp_path / "glide.webp", "--size", 64)
    assert (tmp_path / "glide.webp").is_file()
    words = ["visualize", place / "runs" / "first", photograph, "--figure", "map", "--out", tmp_path / "a.png"]
    said = command.refused(*words, "--teacher", "no:such")
    assert "This student has no map of where to look: its front is 'focusing'." in said


def test_models_side_by_side(
    place: Path, photograph: Path, tmp_path: Path, fixtures: Path, drawn: list[Figure], command: Command
) -> None:
    torch.save({"model": small_weights(fixtures, "v1")}, tmp_path / "v1.pth")
    save_file(small_weights(fixtures, "bootstrapped_clip"), tmp_path / "clip.safetensors")
    beside = ["--beside", tmp_path / "v1.pth", "--beside", tmp_path / "clip.safetensors"]
    command("visualize", place / "runs" / "first", photograph, "--out", tmp_path / "a.png", *beside)
    (figure,) = drawn
    assert [name for name in ("first", "v1", "clip") if name in headings(figure)] == ["first", "v1", "clip"]
    assert headings(figure).count("Sampling points, last stage") == 3
    assert len(figure.axes) == 1 + 3 + 4 + 4  # the input, then stages and points of each; the third stage of RUN is its last


@pytest.mark.parametrize("view", ["whole", "own"])
def test_shapes_are_kept(place: Path, photograph: Path, tmp_path: Path, drawn: list[Figure], command: Command, view: str) -> None:
    options = ["--view", view, "--out", tmp_path / "a.png", "--stages", "-1"]
    command("visualize", place / "tiny.safetensors", photograph, *options)
    assert len(drawn[0].axes) == 3
    for axes in drawn[0].axes:
        assert axes.images[0].get_array().shape == (72, 96, 3)
        assert axes.images[0].get_extent() == [0, 96, 72, 0]


def test_animation_without_a_figure(place: Path, photograph: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "glide.webp"
    summary = command.json("visualize", place / "tiny.safetensors", photograph, "--animate", out, "--size", 64)
    with Image.open(out) as animation:
        assert animation.n_frames > 4  # frames that are the same to the last pixel are stored once
    assert summary == {"drawn": 1, "written": [str(out)], "skipped": {}}
    assert [entry.name for entry in tmp_path.iterdir()] == ["glide.webp"]


def test_a_teacher_from_elsewhere(place: Path, photograph: Path, tmp_path: Path, drawn: list[Figure], command: Command) -> None:
    words = ["visualize", place / "runs" / "first", photograph, "--out", tmp_path / "a.png", "--figure"]
    teacher = place / "teacher.safetensors"
    moved = teacher.rename(tmp_path / "moved.safetensors")
    try:
        said = command.refused(*words, "density")
        assert "cannot be loaded from where it was" in said
        assert "Say where it is now with --teacher." in said
        assert drawn == []
        command(*words, "pca", "--teacher", f"timm:test_vit@{moved}")
        assert len(drawn) == 1
    finally:
        moved.rename(teacher)
    other = write_teacher(tmp_path / "other.safetensors", classes=4)
    assert "are not those that the student was made from" in command.refused(*words, "density", "--teacher", other)


def test_a_model_without_its_teacher(place: Path, tmp_path: Path, drawn: list[Figure], teacher: str, command: Command) -> None:
    words = ["visualize", place / "tiny.safetensors", place / "photos", "--figure", "density", "--out", tmp_path / "a.png"]
    assert "does not say which teacher it was made from" in command.refused(*words)
    command(*words, "--teacher", teacher)
    assert len(drawn) == 1


def test_an_unreadable_image_is_named(place: Path, tmp_path: Path, drawn: list[Figure], command: Command) -> None:
    broken, out = tmp_path / "broken.jpg", tmp_path / "a.png"
    broken.write_bytes(b"nothing")
    said = command.refused("visualize", place / "tiny.safetensors", place / "photos", broken, "--out", out)
    assert "1 of 4 images cannot be read" in said
    assert "broken.jpg (not an image of a known format). The others are drawn." in said
    assert f"3 images drawn to {out}" in said
    assert len([title for title in headings(drawn[0]) if title.startswith("photograph_")]) == 3


def test_images_that_will_not_do(place: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    (tmp_path / "many").mkdir()
    for number in range(65):
        Image.new("RGB", (1, 1)).save(tmp_path / "many" / f"{number}.png")
    for images, problem in (
        (["broken.jpg"], "None of the 1 images can be read: not an image of a known format."),
        ([], "No image was named"),
        (["empty"], "holds no images"),
        (["many"], "A sheet takes at most 64 images, not 65"),
    ):
        out = tmp_path / "a.png"
        named = [tmp_path / name for name in images]
        assert problem in command.refused("visualize", place / "tiny.safetensors", *named, "--out", out)
        assert not out.exists()


def test_models_that_will_not_do(place: Path, tmp_path: Path, command: Command) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    tiny = place / "tiny.safetensors"
    for models, problem in (
        ([place / "teacher.safetensors"], "is no SparseFormer and has no regions of interest"),
        (["timm:vit_base_patch16_224.augreg_in21k_ft_in1k"], "is a teacher, and has no regions of interest"),
        ([tmp_path / "linear.pth"], "is no SparseFormer and has no regions of interest"),
        ([tmp_path / "none.safetensors"], "There is no run folder, model file or released model"),
        (["sf_v1_tinny"], "Did you mean 'sf_v1_tiny'"),
        ([place / "photos"], "is not a run of sparseformers"),
        ([tiny, "--beside", tiny, "--beside", tiny], "is named twice"),
    ):
        model, *beside = models
        assert problem in command.refused("visualize", model, place / "photos", *beside, "--out", tmp_path / "a.png")
    still = ["visualize", save_student(tmp_path), place / "photos", "--animate", tmp_path / "a.gif"]
    assert "there is nothing to animate" in command.refused(*still)


def test_weights_that_cannot_be_fetched(place: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEFORMERS_CACHE", str(tmp_path))
    # A network that is not there: nothing listens at this port.
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    options = ["--beside", "sf_v1_tiny", "--out", tmp_path / "a.png"]
    said = command.refused("visualize", place / "tiny.safetensors", place / "photos", *options)
    assert "The released weights of 'sf_v1_tiny' could not be fetched" in said
    assert "fetch that file by hand and put it at" in said


def test_targets_are_refused_before_a_model_is_opened(place: Path, photograph: Path, tmp_path: Path, command: Command) -> None:
    before = photograph.read_bytes()
    (tmp_path / "file").write_text("something")
    (tmp_path / "folder.png").mkdir()

    def refused(*options: object) -> str:
        return command.refused("visualize", place / "no_model.safetensors", place / "photos", *options)

    said = refused("--out", tmp_path / "a.xyz")
    assert "Figures cannot be written as '.xyz'. Use one of: .png, .pdf, .svg, .jpg, .jpeg, .webp." in said
    said = refused("--animate", tmp_path / "a.png")
    assert "Figures cannot be written as '.png'. Use one of: .gif, .webp, .mp4." in said
    for target in (tmp_path / "file" / "a.png", tmp_path / "folder.png", Path("/proc/none/a.png")):
        assert f"The file '{target}' cannot be written" in (said := refused("--out", target))
        assert "Choose a place where you may write." in said
    assert "cannot be written" in refused("--animate", tmp_path / "file" / "a.gif")
    assert "is one of the images to draw" in refused("--out", photograph)
    assert photograph.read_bytes() == before
    assert "There is nothing to write" in refused()
    assert "cannot be the same file" in refused("--out", tmp_path / "a.webp", "--animate", tmp_path / "a.webp")
    for options, problem in (
        (["--figure", "iterations", "--beside", "x"], "--beside goes with --figure models, not with iterations"),
        (["--figure", "pca", "--stages", "1"], "--stages goes with --figure models, not with pca"),
        (["--teacher", "bundled"], "--teacher goes with --figure density or map or pca, not with models"),
        (["--size", "3"], "cannot have a --size of 3 pixels"),
        (["--figure", "photo"], "photo"),
    ):
        assert problem in refused("--out", tmp_path / "a.png", *options)
    assert "no_model" in refused("--out", tmp_path / "new" / "a.png")  # nothing is left of the attempt
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder.png"}


def test_short_names(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    names = ["runs/first", "runs/first/", "runs/first/model.safetensors", "tiny.safetensors", "sf_v1_tiny"]
    assert [short_name(name) for name in names] == ["first", "first", "first", "tiny", "sf_v1_tiny"]


@pytest.mark.slow
def test_no_display_is_no_matter(place: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"MPLBACKEND": "TkAgg", "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [place / "tiny.safetensors", place / "photos" / "photograph_000.jpg", "--out", tmp_path / "a.png", "--size", "64"]
    words = [sys.executable, "-m", "sparseformers", "visualize", *map(str, arguments)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.png").is_file()
