"""Trainings that learn maps of features, too."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sparseformers.evaluation.attention import AttendingTeacher
from sparseformers.evaluation.cost import multiply_adds
from sparseformers.inheritance.shares import READ_OUT, parameter_groups
from sparseformers.integrations.card import read_figures
from sparseformers.model.sparseformer import WithTokens
from sparseformers.saving import load
from sparseformers.train import BootstrapConfig, bootstrap
from sparseformers.train.setup import gather_parts
from tests.train.runs import entries, focusing, tiny_settings

CPU = torch.device("cpu")


@pytest.fixture
def settings(tmp_path: Path) -> BootstrapConfig:
    return tiny_settings(tmp_path).with_(dense=True, tokens=4, lr=1e-3)


@pytest.mark.parametrize("front", ["grid", "mixed", "focusing"])
def test_bootstrap__maps_come_nearer_and_are_measured(settings: BootstrapConfig, tmp_path: Path, front: str) -> None:
    settings = (focusing(settings) if front == "focusing" else settings.with_(front=front)).with_(samples=160)
    bootstrap(settings, tmp_path / "run")
    measured = [entry["dense_cosine"] for entry in entries(tmp_path / "run", "held_out")]
    assert measured[-1] > measured[0] + 0.01
    assert "lr_read_out" in entries(tmp_path / "run", "train")[0]
    student, card = load(tmp_path / "run"), (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert all(words in card for words in ("feature map to the teacher's", "adds with the feature map", "student.dense(images)"))
    figures = read_figures(tmp_path / "run" / "config.json", student.config)
    at_grid = WithTokens(student, student.config.focusing.tokens, student.config.read_out.grid)
    assert figures.dense_multiply_adds == multiply_adds(at_grid, torch.empty(1, 3, *figures.student_cost.size))
    assert student.dense(torch.rand(1, 3, 64, 64)).isfinite().all()


def test_cache__keeps_the_patch_tokens_of_the_layer_in_half_precision(settings: BootstrapConfig, tmp_path: Path) -> None:
    settings = settings.with_(cache_teacher=tmp_path / "cache", dense_layer=-2)
    bootstrap(settings, tmp_path / "run")
    (cached,) = (tmp_path / "cache").glob("*/patch_tokens.npy")
    tokens = np.load(cached)
    parts = gather_parts(settings, device=CPU)
    assert parts.cache_key is not None
    assert tokens.dtype == np.float16
    assert tokens.shape[2:] == (parts.teacher.anatomy.block.width, *parts.teacher.grid)
    images = torch.from_numpy(np.load(cached.with_name("images.npy"))[0, :2]).float() / 255
    theirs = AttendingTeacher(parts.teacher, attends=False, layer=-2)(images).tokens
    torch.testing.assert_close(torch.from_numpy(tokens[0, :2]).float(), theirs, atol=5e-3, rtol=1e-2)
    # They count for the room that it takes, which a plan tells; and another layer is another cache.
    assert parts.cache_key.bytes == pytest.approx(sum(path.stat().st_size for path in cached.parent.glob("*.npy")), rel=0.01)
    assert gather_parts(settings.with_(dense_layer=-1), device=CPU).cache_key.digest != cached.parent.name


def test_the_last_layer_but_one__is_what_leaves_that_block(settings: BootstrapConfig) -> None:
    teacher = gather_parts(settings, device=CPU).teacher
    images = torch.rand(2, 3, *teacher.preprocessing.size)
    left = teacher.block_inputs(images)[-2][:, teacher.anatomy.prefix_tokens :]  # what enters the last block
    answer = AttendingTeacher(teacher, attends=False, layer=-2)(images)
    torch.testing.assert_close(answer.tokens.flatten(2).mT, left, atol=1e-4, rtol=1e-4)


def test_the_read_out__has_a_rate_of_its_own_and_the_rest_what_it_had(settings: BootstrapConfig) -> None:
    student, plain = (gather_parts(each, device=CPU).inheritance.student for each in (settings, settings.with_(dense=False)))
    groups, without = parameter_groups(student), parameter_groups(plain)
    assert READ_OUT not in without
    assert {name for name, _ in groups["tuned"]} - {name for name, _ in without["tuned"]} == {
        f"read_out.embedding.{name}" for name in ("weight", "bias", "positions")
    }
    assert settings.lr_ratios[READ_OUT] == 100
    assert focusing(settings).lr_ratios[READ_OUT] == pytest.approx(10)
