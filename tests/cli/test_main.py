"""The commands as a user types them, in this process: exit codes, output, and what is left on disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import sparseformers
from sparseformers.cli.main import main
from tests.model.small import small_model
from tests.tiny import SIDE, write_images, write_teacher

SMALL = ["--image-size", str(SIDE), "--tokens", "4", "--batch-size", "4"]
FAST = [*SMALL, "--samples", "16", "--holdout", "0.3", "--evaluations", "1", "--precision", "fp32", "--workers", "0"]


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    return write_teacher(tmp_path / "teacher.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", 10)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("main")
    write_images(folder / "photos", 10)
    given = ["--teacher", write_teacher(folder / "teacher.safetensors"), "--data", str(folder / "photos"), *FAST]
    assert main(["bootstrap", *given, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refused command prints; it has to end with code 2 and without a traceback."""
    try:
        code = main(arguments)
    except SystemExit as stop:  # of the parser
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in captured.out + captured.err
    return " ".join((captured.out + captured.err).split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sparseformers {sparseformers.__version__}\n"


@pytest.mark.parametrize("command", ["bootstrap", "resume", "evaluate", "profile", "visualize", "demo"])
def test_help__shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"Example: sparseformers {command}" in " ".join(capsys.readouterr().out.split())


def test_bootstrap_evaluate_visualize_resume__end_to_end(
    tmp_path: Path, teacher: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["bootstrap", "--teacher", teacher, "--data", str(photos), "--out", str(run), *FAST]) == 0
    printed = capsys.readouterr().out
    assert "held-out centred cosine" in printed
    assert "a constant output has" in printed
    assert main(["evaluate", str(run), "--data", str(photos), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert next(iter(figures["alignment"])) == "centred_cosine"
    assert figures["alignment"]["images"] == 10
    assert figures["knn_student"] is None
    image = next(photos.iterdir())
    assert main(["visualize", str(run), str(image), "--out", str(run / "looks.png")]) == 0
    with Image.open(run / "looks.png") as picture:
        assert picture.width > picture.height
    capsys.readouterr()
    assert main(["resume", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 16


def test_bootstrap__several_data_folders(tmp_path: Path, teacher: str, photos: Path) -> None:
    write_images(tmp_path / "more", 6, seed=1)
    data = ["--data", str(photos), "--data", str(tmp_path / "more")]
    assert main(["bootstrap", "--teacher", teacher, *data, "--out", str(tmp_path / "run"), *FAST]) == 0
    resolved = json.loads((tmp_path / "run" / "config.json").read_text())["resolved"]
    assert resolved["train_images"] + resolved["held_out_images"] == 16


def test_bootstrap__json_summary_is_all_of_standard_output(
    tmp_path: Path, teacher: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bootstrap", "--teacher", teacher, "--data", str(photos), "--out", str(tmp_path / "run"), *FAST, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["samples"] == 16
    assert summary["student_cost"]["multiply_adds"] > 0


def test_evaluate__class_folders_give_neighbour_and_classifier_accuracy(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, count in (("train", 6), ("test", 3)):
        for number, name in enumerate(("apple", "bird", "cup")):
            write_images(tmp_path / "classes" / split / name, count, seed=10 * number + count)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(tmp_path / "classes"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["alignment"]["images"] == 9
    for key in ("knn_teacher", "knn_student", "knn_drop_in", "classifier_teacher", "classifier_student"):
        assert 0 <= figures[key] <= 1, key


def test_evaluate__lists_what_it_skips(run: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "broken.png").write_bytes(b"nothing")
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(photos)]) == 0
    assert "broken.png" in capsys.readouterr().out


def test_evaluate__views_of_few_images(run: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(photos), "--views", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alignment"]["images"] == 30


def test_profile__of_a_run_names_the_parameter_groups(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["profile", str(run), "--repeats", "1", "--batch", "1", "2", "--json"]) == 0
    profile = json.loads(capsys.readouterr().out)
    assert set(profile["parameter_groups"]) == {"new", "tuned", "frozen"}
    assert sum(profile["parameter_groups"].values()) == profile["student"]["parameters"]
    assert [timing["teacher"]["batch"] for timing in profile["timings"]] == [1, 2]


@pytest.mark.slow
def test_profile__a_named_size_gives_the_papers_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "sf_base_augreg", "--repeats", "1", "--batch", "1", "--json"]) == 0
    student = json.loads(capsys.readouterr().out)["student"]
    assert student["parameters"] / 1e6 == pytest.approx(64.2, rel=0.01)
    assert student["multiply_adds"] / 1e9 == pytest.approx(3.75, rel=0.01)


def test_bad_input__of_bootstrap(tmp_path: Path, teacher: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"

    def refused(*changes: str, teacher: str = teacher, data: Path = photos) -> str:
        return refusal(capsys, "bootstrap", "--teacher", teacher, "--data", str(data), "--out", str(out), *FAST, *changes)

    assert "Did you mean" in refused(teacher="timm:vit_base_patch16_242.augreg")
    assert "names no teacher" in refused(teacher="resnet")
    assert "does not exist" in refused(data=tmp_path / "nowhere") or "no folder" in refused(data=tmp_path / "nowhere").lower()
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused(data=tmp_path / "empty")
    (tmp_path / "unreadable").mkdir()
    for number in range(3):
        (tmp_path / "unreadable" / f"{number}.jpg").write_bytes(b"nothing")
    assert "can be read" in refused(data=tmp_path / "unreadable") or "could be read" in refused(
        "--overwrite", data=tmp_path / "unreadable"
    )
    assert "--tokens must be at least 1" in refused("--tokens", "0")
    assert "do not add up to the teacher's 6 blocks" in refused(
        "--front", "focusing", "--truncate", "3", "--tune", "3", "--freeze", "3"
    )
    assert "--lr" in refused("--lrr", "3")
    assert "given 2 times" in refused("--minutes", "3")


def test_bad_input__leaves_nothing_half_written(tmp_path: Path, teacher: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "unreadable").mkdir()
    for number in range(3):
        (tmp_path / "unreadable" / f"{number}.jpg").write_bytes(b"nothing")
    data, out = str(tmp_path / "unreadable"), tmp_path / "run"
    refusal(capsys, "bootstrap", "--teacher", teacher, "--data", data, "--out", str(out), *FAST)
    assert not out.exists()


def test_bad_input__weights_that_do_not_fit_are_listed(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import save_file

    save_file({"patch_embed.proj.weight": torch.zeros(64, 3, 16, 16), "stray": torch.zeros(1)}, tmp_path / "odd.safetensors")
    name = f"timm:test_vit@{tmp_path / 'odd.safetensors'}"
    said = refusal(capsys, "bootstrap", "--teacher", name, "--data", str(photos), "--out", str(tmp_path / "run"), *FAST)
    assert "missing:" in said
    assert "unexpected: stray" in said
    assert "more" in said


def test_bad_input__of_the_other_commands(run: Path, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    image = str(next(photos.iterdir()))
    assert "is not a run of sparseformers" in refusal(capsys, "resume", str(photos))
    assert "is not a run of sparseformers" in refusal(capsys, "evaluate", str(photos), "--data", str(photos))
    assert "is in use" in refusal(capsys, "bootstrap", "--teacher", "bundled", "--data", str(photos), "--out", str(run))
    assert "Did you mean 'sf_base_clip'" in refusal(capsys, "profile", "sf_base_clp")
    assert "png" in refusal(capsys, "visualize", str(run), image, "--out", str(tmp_path / "looks.xyz"))
    model = run / "model.safetensors"
    model.write_bytes(model.read_bytes()[:1000])
    assert "cut short" in refusal(capsys, "visualize", str(run), image, "--out", str(tmp_path / "looks.png"))
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    sparseformers.save(small_model(), tmp_path / "model.safetensors")
    said = refusal(
        capsys, "visualize", str(tmp_path / "model.safetensors"), str(tmp_path / "broken.jpg"), "--out", str(tmp_path / "l.png")
    )
    assert "can be read" in said
    assert not (tmp_path / "l.png").exists()
    assert "does not say which teacher" in refusal(capsys, "evaluate", str(tmp_path / "model.safetensors"), "--data", str(photos))


def test_unknown_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert "bootstrap" in refusal(capsys, "bootstrapp")
    needed = ["--teacher", "bundled", "--data", "photos", "--out", "run"]
    assert "--batch-size" in refusal(capsys, "bootstrap", *needed, "--batchsize", "3")


def test_interrupt__ends_with_130(monkeypatch: pytest.MonkeyPatch, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparseformers.train.resume", interrupt)
    assert main(["resume", str(run)]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_interrupt__while_a_command_is_being_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparseformers.cli.main.importlib.import_module", interrupt)
    assert main(["resume", "run"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_module__is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sparseformers", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"sparseformers {sparseformers.__version__}\n"


def test_commands__that_are_none_or_moved(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'evaluate'?" in refusal(capsys, "evalute")
    assert "From a clone of the repository: make bench-speed." in refusal(capsys, "benchmark", "sf_base_augreg")
