"""The commands as a user types them, in this process: exit codes, output, and what is left on disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import sparseformers
from tests.cli.command import FAST, Command
from tests.model.small import small_model
from tests.tiny import write_images


def test_version__also_of_the_module(tmp_path: Path, command: Command) -> None:
    version = f"sparseformers {sparseformers.__version__}"
    assert command("--version") == version
    words = [sys.executable, "-m", "sparseformers", "--version"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == f"{version}\n"


def test_bootstrap_evaluate_visualize_resume__end_to_end(tmp_path: Path, teacher: str, photos: Path, command: Command) -> None:
    run = tmp_path / "run"
    printed = command("bootstrap", "--teacher", teacher, "--data", photos, "--out", run, *FAST)
    assert "held-out centred cosine" in printed
    assert "a constant output has" in printed
    figures = command.json("evaluate", run, "--data", photos)
    assert next(iter(figures["alignment"])) == "centred_cosine"
    assert figures["alignment"]["images"] == 10
    assert figures["knn_student"] is None
    command("visualize", run, next(photos.iterdir()), "--out", run / "looks.png")
    with Image.open(run / "looks.png") as picture:
        assert picture.width > picture.height
    assert command.json("resume", run)["samples"] == 16


def test_bootstrap__of_several_folders_with_json(tmp_path: Path, teacher: str, photos: Path, command: Command) -> None:
    write_images(tmp_path / "more", 6, seed=1)
    data = ["--data", photos, "--data", tmp_path / "more"]
    summary = command.json("bootstrap", "--teacher", teacher, *data, "--out", tmp_path / "run", *FAST)
    assert summary["samples"] == 16
    assert summary["student_cost"]["multiply_adds"] > 0
    resolved = json.loads((tmp_path / "run" / "config.json").read_text())["resolved"]
    assert resolved["train_images"] + resolved["held_out_images"] == 16


def test_profile__of_a_run_names_the_parameter_groups(run: Path, command: Command) -> None:
    profile = command.json("profile", run, "--repeats", 1, "--batch", 1, 2)
    assert set(profile["parameter_groups"]) == {"new", "tuned", "frozen"}
    assert sum(profile["parameter_groups"].values()) == profile["student"]["parameters"]
    assert [timing["teacher"]["batch"] for timing in profile["timings"]] == [1, 2]


def test_bad_input__of_bootstrap(tmp_path: Path, teacher: str, photos: Path, command: Command) -> None:
    out = tmp_path / "run"
    for name in ("empty", "unreadable"):
        (tmp_path / name).mkdir()
    for number in range(3):
        (tmp_path / "unreadable" / f"{number}.jpg").write_bytes(b"nothing")

    def refused(*changes: object, teacher: str = teacher, data: Path = photos) -> str:
        return command.refused("bootstrap", "--teacher", teacher, "--data", data, "--out", out, *FAST, *changes)

    assert "Did you mean" in refused(teacher="timm:vit_base_patch16_242.augreg")
    assert "names no teacher" in refused(teacher="resnet")
    assert "does not exist" in refused(data=tmp_path / "nowhere")
    assert "holds no images" in refused(data=tmp_path / "empty")
    assert "can be read" in refused(data=tmp_path / "unreadable")
    assert "--tokens must be at least 1" in refused("--tokens", 0)
    assert "99 latent tokens are more than the 16 patches" in refused("--tokens", 99)
    thirds = ("--truncate", 3, "--tune", 3, "--freeze", 3)
    assert "do not add up to the teacher's 6 blocks" in refused("--front", "focusing", *thirds)
    assert "given 2 times" in refused("--minutes", 3)
    assert not out.exists()


def test_bad_input__weights_that_do_not_fit_are_listed(tmp_path: Path, photos: Path, command: Command) -> None:
    save_file({"patch_embed.proj.weight": torch.zeros(64, 3, 16, 16), "stray": torch.zeros(1)}, tmp_path / "odd.safetensors")
    teacher = f"timm:test_vit@{tmp_path / 'odd.safetensors'}"
    said = command.refused("bootstrap", "--teacher", teacher, "--data", photos, "--out", tmp_path / "run", *FAST)
    for part in ("missing:", "unexpected: stray", "more"):
        assert part in said


def test_bad_input__of_the_other_commands(run: Path, tmp_path: Path, photos: Path, command: Command) -> None:
    image = next(photos.iterdir())
    assert "is not a run of sparseformers" in command.refused("resume", photos)
    assert "is not a run of sparseformers" in command.refused("evaluate", photos, "--data", photos)
    assert "is in use" in command.refused("bootstrap", "--teacher", "bundled", "--data", photos, "--out", run)
    assert "Did you mean 'sf_base_clip'" in command.refused("profile", "sf_base_clp")
    model = run / "model.safetensors"
    model.write_bytes(model.read_bytes()[:1000])
    assert "cut short" in command.refused("visualize", run, image, "--out", tmp_path / "looks.png")
    sparseformers.save(small_model(), tmp_path / "model.safetensors")
    assert "does not say which teacher" in command.refused("evaluate", tmp_path / "model.safetensors", "--data", photos)


def test_commands_and_options__that_are_unknown_or_gone(command: Command) -> None:
    for words, told in {
        "bootstrapp": "bootstrap",
        "evalute": "Did you mean 'evaluate'?",
        "benchmark sf_base_augreg": "From a clone of the repository: make bench-speed.",
        "bootstrap --batchsize=3": "Did you mean '--batch-size'",
        "plan --tokens 9 --ema 0.99": "error: There is no option --ema any more. It brought nothing: leave it out.",
        "bootstrap --layer_decay 0.9": "There is no option --layer-decay any more.",
        "bootstrap --start fitted": "Use --recipe fitted",
        "bootstrap --recipe moving --looks 2": "There is no recipe 'moving' any more. Use --recipe grid.",
        "bootstrap --rois-lr-ratio 2": "There is no option --rois-lr-ratio any more.",
        "profile runs/first --batches 1": "It is called --batch now.",
        "resume runs/first --sett keep=2": "Did you mean '--set'?",
        "view runs/first --browser": "Did you mean '--no-browser'",
        "bootstrap --dense 0.5": "--dense is a switch and takes no value, such as '0.5'. Leave the value out.",
        "demo -j": "'sparseformers demo' has no option -j. 'sparseformers demo --help' lists the options.",
    }.items():
        assert told in command.refused(*words.split())


@pytest.mark.parametrize("place", ["sparseformers.train.resume", "sparseformers.cli.main.importlib.import_module"])
def test_interrupt__is_130_also_amid_imports(place: str, monkeypatch: pytest.MonkeyPatch, run: Path, command: Command) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupt)
    assert command("resume", run, code=130) == "interrupted"
