"""Whole runs on the CPU with a tiny teacher and generated photographs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sparseformers
from sparseformers.data import Batch
from sparseformers.errors import ConfigError, DataError, RunError, TeacherError, WeightsError
from sparseformers.train import BootstrapConfig, bootstrap, resume
from sparseformers.train.optimiser import rate_factor
from sparseformers.train.step import StepFigures, TrainingStep
from tests.tiny import SIDE, write_images, write_teacher
from tests.train.runs import changed, entries, last_checkpoint, tiny_settings

RUN_FILES = {
    "README.md",
    "checkpoints",
    "checkpoints/best.safetensors",
    "checkpoints/step-00000006",
    "checkpoints/step-00000006/manifest.json",
    "checkpoints/step-00000006/optimiser.safetensors",
    "checkpoints/step-00000006/state.json",
    "checkpoints/step-00000006/student.safetensors",
    "config.json",
    "curves.png",
    "heartbeat.json",
    "held_out",
    "held_out/cosines.jsonl",
    "held_out/worst.safetensors",
    "metrics.jsonl",
    "model.safetensors",
    "report.html",
    "skipped_images.txt",
    "train.log",
}


@pytest.fixture
def settings(tmp_path: Path) -> BootstrapConfig:
    return tiny_settings(tmp_path)


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.draws
def test_bootstrap__writes_the_run_folder(settings: BootstrapConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = bootstrap(settings, out)
    assert files_of(out) == RUN_FILES
    assert summary.samples == 24
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["optimisation"]["samples"] == 24
    assert config["resolved"]["precision"] == "fp32"
    assert config["resolved"]["shares"] == {"truncate": 0, "tune": 4, "freeze": 2}
    assert len(config["resolved"]["teacher_fingerprint"]) == 64
    assert config["versions"]["torch"] == torch.__version__
    assert [entry["samples"] for entry in entries(out, "held_out")] == [0, 8, 16, 24]
    card = (out / "README.md").read_text()
    assert f"{summary.alignment.centred_cosine:.3f}" in card
    assert "finished" in (out / "train.log").read_text()


def test_bootstrap__learns_to_point_where_the_teacher_points(settings: BootstrapConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    bootstrap(changed(settings, samples=800, batch_size=16, evaluations=4), out)
    measured = [entry["centred_cosine"] for entry in entries(out, "held_out")]
    assert measured[-1] > measured[0] + 0.07


def test_bootstrap__leaves_frozen_parts_as_the_teachers_and_moves_the_others(settings: BootstrapConfig, tmp_path: Path) -> None:
    bootstrap(settings, tmp_path / "run")
    teacher = sparseformers.load_teacher(settings.network.teacher, image_size=SIDE)
    start = sparseformers.inherit(teacher).student
    trained = sparseformers.load(tmp_path / "run").state_dict()
    for name, parameter in start.named_parameters():
        moved = not torch.equal(trained[name], parameter)
        assert moved == parameter.requires_grad, name


def test_bootstrap__takes_a_teacher_by_name(settings: BootstrapConfig, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="timm has no model of the name 'vit_nowhere'"):
        bootstrap(settings, tmp_path / "run", teacher="timm:vit_nowhere")
    with pytest.raises(TeacherError, match="A teacher is a name or a network"):
        bootstrap(settings, tmp_path / "run", teacher=3)  # type: ignore[arg-type]


def test_bootstrap__model_needs_no_teacher(settings: BootstrapConfig, tmp_path: Path) -> None:
    bootstrap(settings, tmp_path / "run")
    (tmp_path / "teacher.safetensors").unlink()
    output = sparseformers.load(tmp_path / "run")(torch.rand(1, 3, 48, 80))
    assert output.embedding.shape == (1, 64)
    assert output.logits is not None
    assert output.logits.shape == (1, 3)


def test_bootstrap__the_rate_follows_the_schedule_at_the_middle_of_each_step(
    settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors: list[float] = []
    monkeypatch.setattr(sys.modules[TrainingStep.__module__], "set_rates", lambda _optimiser, factor: factors.append(factor))
    bootstrap(changed(settings, warm_up=0.25), tmp_path / "run")
    assert factors == pytest.approx([rate_factor((4 * step + 2) / 24, 0.25) for step in range(6)])


def test_bootstrap__a_single_step_moves_what_learns(settings: BootstrapConfig, tmp_path: Path) -> None:
    bootstrap(changed(settings, samples=4), tmp_path / "run")
    teacher = sparseformers.load_teacher(settings.network.teacher, image_size=SIDE)
    start = sparseformers.inherit(teacher).student
    trained = sparseformers.load(tmp_path / "run").state_dict()
    learning = [name for name, parameter in start.named_parameters() if parameter.requires_grad]
    assert not any(torch.equal(trained[name], start.state_dict()[name]) for name in learning)


def test_bootstrap__repeats_bit_for_bit_with_a_seed_and_any_number_of_workers(settings: BootstrapConfig, tmp_path: Path) -> None:
    bootstrap(settings, tmp_path / "one")
    bootstrap(changed(settings, workers=2), tmp_path / "two")
    bootstrap(changed(settings, seed=1), tmp_path / "other")
    first, again, other = (sparseformers.load(tmp_path / name).state_dict() for name in ("one", "two", "other"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (tmp_path / "two" / "model.safetensors").read_bytes()
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_resume__after_a_stop_ends_where_the_uninterrupted_run_ends(
    settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = changed(settings, checkpoint_every="1steps")
    bootstrap(settings, tmp_path / "whole")
    original = TrainingStep.__call__

    def stop_at_the_fourth_batch(
        self: TrainingStep, batch: Batch, *, rate: float, samples: int, progress: float
    ) -> StepFigures | None:
        if samples == 12:
            raise KeyboardInterrupt
        return original(self, batch, rate=rate, samples=samples, progress=progress)

    monkeypatch.setattr(TrainingStep, "__call__", stop_at_the_fourth_batch)
    with pytest.raises(KeyboardInterrupt):
        bootstrap(settings, tmp_path / "stopped")
    monkeypatch.undo()
    resume(tmp_path / "stopped")
    whole, stopped = (sparseformers.load(tmp_path / name).state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    figures = [
        [(e["samples"], e["centred_cosine"]) for e in entries(tmp_path / name, "held_out")] for name in ("whole", "stopped")
    ]
    assert figures[0] == figures[1]
    kept = [{path.name: path.read_bytes() for path in (tmp_path / name / "held_out").iterdir()} for name in ("whole", "stopped")]
    assert kept[0] == kept[1]
    ends = [last_checkpoint(tmp_path / name) for name in ("whole", "stopped")]
    for part in ("student", "optimiser"):
        first, second = (flat(end[part]) for end in ends)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first), part


def flat(state: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors and numbers of nested dictionaries and lists."""
    if isinstance(state, (dict, list, tuple)):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {key: value for name, item in items for key, value in flat(item, f"{prefix}{name}.").items()}
    return {prefix: torch.as_tensor(state)} if isinstance(state, (torch.Tensor, int, float)) else {}


def test_resume__of_a_finished_run_changes_nothing(settings: BootstrapConfig, tmp_path: Path) -> None:
    finished = bootstrap(settings, tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    again = resume(tmp_path / "run")
    assert (again.samples, again.alignment) == (24, finished.alignment)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_resume__refuses_what_is_no_run_and_another_teacher(settings: BootstrapConfig, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run of sparseformers"):
        resume(tmp_path)
    bootstrap(settings, tmp_path / "run")
    (tmp_path / "run" / "README.md").unlink()  # without which it is not finished
    write_teacher(tmp_path / "teacher.safetensors", classes=4)
    with pytest.raises(WeightsError, match="not those that the student was made from"):
        resume(tmp_path / "run")


def test_resume__unknown_key_in_the_runs_settings_suggests_the_nearest(settings: BootstrapConfig, tmp_path: Path) -> None:
    bootstrap(settings, tmp_path / "run")
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    content["settings"]["network"]["tokenss"] = 3
    (tmp_path / "run" / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"unknown key 'network.tokenss'\. Did you mean 'tokens'"):
        resume(tmp_path / "run")


def test_bootstrap__refuses_a_folder_in_use(settings: BootstrapConfig, tmp_path: Path) -> None:
    bootstrap(settings, tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match="is in use") as caught:
        bootstrap(settings, tmp_path / "run")
    assert "--overwrite" in caught.value.remedy
    assert "sparseformers resume" in caught.value.remedy
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    bootstrap(settings, tmp_path / "run", overwrite=True)
    with pytest.raises(RunError, match="holds no run, so it is not overwritten"):
        bootstrap(settings, tmp_path / "photos", overwrite=True)
    assert len(list((tmp_path / "photos").iterdir())) == 12


def test_bootstrap__skips_counts_and_lists_unreadable_images(settings: BootstrapConfig, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "photos" / f"broken_{number}.jpg").write_bytes(b"not an image")
    summary = bootstrap(changed(settings, samples=48), tmp_path / "run")
    listed = (tmp_path / "run" / "skipped_images.txt").read_text()
    assert summary.skipped == 3
    assert all(f"broken_{number}.jpg" in listed for number in range(3))


def test_bootstrap__a_folder_in_which_nothing_can_be_read(settings: BootstrapConfig, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    for number in range(4):
        (tmp_path / "bad" / f"{number}.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"can be read|could be read"):
        bootstrap(changed(settings, data=(tmp_path / "bad",)), tmp_path / "run")


def test_bootstrap__never_trains_on_held_out_images(
    settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    original = TrainingStep.__call__

    def record(self: TrainingStep, batch: Batch, *, rate: float, samples: int, progress: float) -> StepFigures | None:
        seen.update(self.parts.train.name(int(index)) for index in batch.indices)
        held_out.update(self.parts.held_out.name(index) for index in range(len(self.parts.held_out)))
        return original(self, batch, rate=rate, samples=samples, progress=progress)

    held_out: set[str] = set()
    monkeypatch.setattr(TrainingStep, "__call__", record)
    bootstrap(changed(settings, samples=60), tmp_path / "run")
    assert held_out
    assert seen
    assert not seen & held_out
    assert seen | held_out == {str(path) for path in (tmp_path / "photos").iterdir()}


def test_bootstrap__evaluation_folder_is_taken_out_of_the_training_images(settings: BootstrapConfig, tmp_path: Path) -> None:
    write_images(tmp_path / "photos" / "evaluation", 3, seed=1)
    bootstrap(changed(settings, eval_data=(tmp_path / "photos" / "evaluation",), eval_views=4), tmp_path / "run")
    resolved = json.loads((tmp_path / "run" / "config.json").read_text())["resolved"]
    assert (resolved["train_images"], resolved["held_out_images"]) == (12, 3)
    assert entries(tmp_path / "run", "held_out")[0]["images"] == 12  # 3 images x 4 views


def test_bootstrap__minutes_decay_to_zero_on_the_clock(settings: BootstrapConfig, tmp_path: Path) -> None:
    summary = bootstrap(changed(settings, samples=None, minutes=0.05), tmp_path / "run")
    assert summary.samples >= 4
    assert summary.seconds >= 3
    assert entries(tmp_path / "run", "held_out")[-1]["samples"] == summary.samples


def test_bootstrap__takes_a_module_as_teacher(settings: BootstrapConfig, tmp_path: Path) -> None:
    network = sparseformers.load_teacher(settings.network.teacher, image_size=SIDE).network
    by_module = bootstrap(settings, tmp_path / "module", teacher=network)
    by_name = bootstrap(settings, tmp_path / "name")
    assert by_module.alignment == by_name.alignment


def test_bootstrap__crop_scale_changes_what_is_learnt_from_and_not_what_is_measured_on(
    settings: BootstrapConfig, tmp_path: Path
) -> None:
    bootstrap(changed(settings, samples=4), tmp_path / "run")
    bootstrap(changed(settings, samples=4, crop_scale=0.25), tmp_path / "same")
    bootstrap(changed(settings, samples=4, crop_scale=0.9), tmp_path / "other")
    run, same, other = (sparseformers.load(tmp_path / name).state_dict() for name in ("run", "same", "other"))
    assert all(torch.equal(run[name], same[name]) for name in run)
    assert not all(torch.equal(run[name], other[name]) for name in run)
    assert (
        entries(tmp_path / "run", "held_out")[0]["centred_cosine"] == entries(tmp_path / "other", "held_out")[0]["centred_cosine"]
    )
