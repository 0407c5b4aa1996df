"""Whole runs on the CPU with a tiny teacher and generated photographs."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import sparseformers
from sparseformers.data import Batch
from sparseformers.errors import ConfigError, DataError, RunError, TeacherError, WeightsError
from sparseformers.settings import to_dict
from sparseformers.train import BootstrapConfig, RunFolder, bootstrap, resume
from sparseformers.train.optimiser import rate_factor
from sparseformers.train.step import TrainingStep
from tests.tiny import SIDE, write_images, write_teacher
from tests.train.runs import at_each_step, entries, tiny_settings, weights, write_broken

RUN_FILES = {
    *("README.md", "config.json", "curves.png", "heartbeat.json", "metrics.jsonl", "model.safetensors", "report.html"),
    *("skipped_images.txt", "train.log", "held_out", "held_out/cosines.jsonl", "held_out/worst.safetensors"),
    *("checkpoints", "checkpoints/best.safetensors", "checkpoints/step-00000006"),
    *(f"checkpoints/step-00000006/{name}" for name in ("manifest.json", "state.json")),
    *(f"checkpoints/step-00000006/{name}.safetensors" for name in ("optimiser", "student")),
}


def test_bootstrap__writes_the_run_folder(whole_run: Path) -> None:
    out, figures = whole_run, RunFolder(whole_run).read_figures()
    assert {path.relative_to(out).as_posix() for path in out.rglob("*")} == RUN_FILES
    assert figures["samples"] == 24
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["optimisation"]["samples"] == 24
    assert config["resolved"]["precision"] == "fp32"
    assert config["resolved"]["shares"] == {"truncate": 0, "tune": 4, "freeze": 2}
    assert len(config["resolved"]["teacher_fingerprint"]) == 64
    assert config["versions"]["torch"] == version("torch")
    assert [entry["samples"] for entry in entries(out, "held_out")] == [0, 8, 16, 24]
    card = (out / "README.md").read_text()
    assert f"{figures['alignment']['centred_cosine']:.3f}" in card
    assert "finished" in (out / "train.log").read_text()


def test_bootstrap__all_that_learns_moves_at_once(shared_settings: BootstrapConfig, whole_run: Path, tmp_path: Path) -> None:
    bootstrap(shared_settings.with_(samples=4), tmp_path / "step")
    teacher = sparseformers.load_teacher(shared_settings.network.teacher, image_size=SIDE)
    start = sparseformers.inherit(teacher).student
    trained, after_a_step = (sparseformers.load(run).state_dict() for run in (whole_run, tmp_path / "step"))
    for name, parameter in start.named_parameters():
        moved = not torch.equal(trained[name], parameter)
        assert moved == parameter.requires_grad, name
        assert not (moved and torch.equal(after_a_step[name], parameter)), name


def test_resume__refuses_unknown_settings_and_another_teacher_but_of_a_finished_run(copied_run: Path, tmp_path: Path) -> None:
    figures, before = RunFolder(copied_run).read_figures(), (copied_run / "model.safetensors").read_bytes()
    again = resume(copied_run)
    assert (again.samples, to_dict(again.alignment)) == (24, figures["alignment"])
    assert (copied_run / "model.safetensors").read_bytes() == before
    with pytest.raises(RunError, match="is not a run of sparseformers"):
        resume(tmp_path)
    (copied_run / "README.md").unlink()  # without which it is not finished
    other = {"teacher": write_teacher(tmp_path / "other.safetensors", classes=4)}
    content = json.loads((copied_run / "config.json").read_text())
    for changes, problem in (
        ({"tokenss": 3}, r"unknown key 'network.tokenss'\. Did you mean 'tokens'"),
        (other, "not those that the student was made from"),
    ):
        changed = {**content["settings"], "network": content["settings"]["network"] | changes}
        (copied_run / "config.json").write_text(json.dumps({**content, "settings": changed}))
        with pytest.raises((ConfigError, WeightsError), match=problem):
            resume(copied_run)


def test_bootstrap__refuses_a_folder_in_use(shared_settings: BootstrapConfig, copied_run: Path, tmp_path: Path) -> None:
    before = (copied_run / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match="is in use") as caught:
        bootstrap(shared_settings, copied_run)
    assert "--overwrite" in caught.value.remedy
    assert "sparseformers resume" in caught.value.remedy
    assert (copied_run / "model.safetensors").read_bytes() == before
    bootstrap(shared_settings.with_(samples=4), copied_run, overwrite=True)
    (photograph,) = write_images(tmp_path / "photos", 1)
    with pytest.raises(RunError, match="holds no run, so it is not overwritten"):
        bootstrap(shared_settings, photograph.parent, overwrite=True)
    assert photograph.is_file()


def test_bootstrap__skips_counts_and_lists_unreadable_images(settings: BootstrapConfig, tmp_path: Path) -> None:
    write_broken(tmp_path / "photos")
    summary = bootstrap(settings.with_(samples=48), tmp_path / "run")
    listed = (tmp_path / "run" / "skipped_images.txt").read_text()
    assert summary.skipped == 3
    assert all(f"broken_{number}.jpg" in listed for number in range(3))
    for path in (tmp_path / "photos").iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"None of the \d+ training images can be read"):
        bootstrap(settings, tmp_path / "nothing")


def test_steps__follow_the_schedule_and_never_see_held_out_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, seen, held_out, factors = tiny_settings(tmp_path), set[str](), set[str](), list[float]()
    monkeypatch.setattr(sys.modules[TrainingStep.__module__], "set_rates", lambda _optimiser, factor: factors.append(factor))

    def record(step: TrainingStep, batch: Batch, _samples: int) -> None:
        seen.update(step.parts.train.name(int(index)) for index in batch.indices)
        held_out.update(step.parts.held_out.name(index) for index in range(len(step.parts.held_out)))

    at_each_step(monkeypatch, record)
    bootstrap(settings.with_(samples=40, evaluations=1, warm_up=0.25), tmp_path / "run")
    assert factors == pytest.approx([rate_factor((4 * step + 2) / 40, 0.25) for step in range(10)])  # at the middle of each
    assert held_out
    assert seen
    assert not seen & held_out
    assert seen | held_out == {str(path) for path in (tmp_path / "photos").iterdir()}


def test_bootstrap__evaluation_folder_is_taken_out_of_the_training_images(settings: BootstrapConfig, tmp_path: Path) -> None:
    write_images(tmp_path / "photos" / "evaluation", 3, seed=1)
    bootstrap(settings.with_(eval_data=(tmp_path / "photos" / "evaluation",), eval_views=4), tmp_path / "run")
    resolved = json.loads((tmp_path / "run" / "config.json").read_text())["resolved"]
    assert (resolved["train_images"], resolved["held_out_images"]) == (12, 3)
    assert entries(tmp_path / "run", "held_out")[0]["images"] == 12  # 3 images x 4 views


def test_bootstrap__takes_names_and_modules(shared_settings: BootstrapConfig, whole_run: Path, tmp_path: Path) -> None:
    network = sparseformers.load_teacher(shared_settings.network.teacher, image_size=SIDE).network
    by_module = bootstrap(shared_settings, tmp_path / "module", teacher=network)
    assert to_dict(by_module.alignment) == RunFolder(whole_run).read_figures()["alignment"]
    with pytest.raises(TeacherError, match="timm has no model of the name 'vit_nowhere'"):
        bootstrap(shared_settings, tmp_path / "run", teacher="timm:vit_nowhere")
    with pytest.raises(TeacherError, match="A teacher is a name or a network"):
        bootstrap(shared_settings, tmp_path / "run", teacher=3)  # type: ignore[arg-type]


def test_crop_scale__is_of_what_is_learnt_from_and_not_measured_on(shared_settings: BootstrapConfig, tmp_path: Path) -> None:
    run, same, other = (tmp_path / str(scale) for scale in (None, 0.25, 0.9))
    for path, scale in ((run, None), (same, 0.25), (other, 0.9)):
        bootstrap(shared_settings.with_(samples=4, evaluations=1, crop_scale=scale), path)
    assert weights(run) == weights(same) != weights(other)
    assert entries(run, "held_out")[0]["centred_cosine"] == entries(other, "held_out")[0]["centred_cosine"]
