"""Inheritance with a grid front: the student starts as its teacher at a lower resolution."""

from pathlib import Path
from typing import cast

import pytest
import torch
import torch.nn.functional as F

from sparseformers.errors import ConfigError
from sparseformers.inheritance import Shares, count_parameters, inherit, parameter_groups
from sparseformers.model.grid import GridFront
from sparseformers.saving import load, save
from sparseformers.teachers import load_teacher
from tests.inheritance.test_focusing import vit
from tests.tiny import write_teacher


def images(side: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}])
def test_the_untrained_student_is_the_low_resolution_teacher(options: dict[str, object]) -> None:
    teacher = vit(**options)
    student = inherit(teacher, front="grid", tokens=16).student.eval()
    low = load_teacher(teacher.network, image_size=32)
    with torch.inference_mode():
        ours = student(images())
        theirs = low(F.interpolate(images(), size=(32, 32), mode="bilinear", antialias=True))
    torch.testing.assert_close(ours.embedding, theirs.embedding, rtol=0, atol=2e-5)
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=2e-5)


def test_shares__nothing_is_truncated_and_two_thirds_are_tuned() -> None:
    teacher = vit()
    inheritance = inherit(teacher, front="grid")
    assert inheritance.report.shares == Shares(truncate=0, tune=4, freeze=2)
    assert "Teacher's blocks truncated: none; tuned: 0 to 3; frozen: 4 to 5." in inheritance.report.lines()
    assert inheritance.report.left_behind == ()
    assert "Left behind: nothing." in inheritance.report.lines()
    learning = {name for name, parameter in inheritance.student.named_parameters() if parameter.requires_grad}
    assert "cortex.blocks.3.norm1.weight" in learning
    assert "cortex.blocks.4.norm1.weight" not in learning
    assert "cortex.norm.weight" not in learning
    with pytest.raises(ConfigError, match="--truncate 2 is impossible with a grid front"):
        inherit(teacher, front="grid", truncate=2)
    with pytest.raises(ConfigError, match="do not add up"):
        inherit(teacher, front="grid", tune=5, freeze=5)


def test_parameter_groups() -> None:
    student = inherit(vit(), front="grid", tune=3).student
    groups = {group: {name for name, _ in members} for group, members in parameter_groups(student).items()}
    assert not groups["new"]
    assert {"focusing.embedding.weight", "focusing.prefix.tokens", "cortex.blocks.0.attn.qkv.weight"} <= groups["tuned"]
    assert {"cortex.norm.weight", "cortex.blocks.3.norm1.weight"} <= groups["frozen"]
    assert sum(map(len, groups.values())) == len(list(student.parameters()))
    assert sum(count_parameters(student).values()) == sum(parameter.numel() for parameter in student.parameters())


def test_a_name_or_a_module_is_a_teacher_too(tmp_path: Path) -> None:
    name, teacher = write_teacher(tmp_path / "teacher.safetensors"), vit()
    assert inherit(name).provenance.teacher == name
    for one, other in zip(inherit(teacher).student.parameters(), inherit(teacher.network).student.parameters(), strict=True):
        assert torch.equal(one, other)


def test_saved_and_loaded__gives_the_same(tmp_path: Path) -> None:
    inheritance = inherit(vit(), front="grid", tokens=9)
    save(inheritance.student, tmp_path / "model.safetensors", provenance=inheritance.provenance)
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.config == inheritance.student.config
    assert cast(GridFront, loaded.focusing).cells.shape == (9, 4)
    torch.testing.assert_close(loaded(images()).embedding, inheritance.student.eval()(images()).embedding, rtol=0, atol=0)
