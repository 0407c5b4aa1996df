"""The fitted start of the papers' front."""

from __future__ import annotations

from typing import cast

import pytest
import torch
import torch.nn.functional as F

from sparseformers.inheritance import inherit
from sparseformers.inheritance.fitted import coarse_tokens, fit_start, ridge_regression
from sparseformers.model import SparseFormer
from sparseformers.model.focusing import FocusingTransformer
from sparseformers.rois import cells
from sparseformers.teachers import Teacher, load_teacher
from tests.inheritance.test_focusing import vit


def views(count: int = 96, side: int = 64) -> torch.Tensor:
    """Images that differ from place to place: a random colour for each of 16 cells, and a little noise."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(count, 3, 4, 4, generator=generator)
    return (F.interpolate(colours, side) + 0.02 * torch.randn(count, 3, side, side, generator=generator)).clamp(0, 1)


def new(teacher: Teacher, tokens: int = 16) -> SparseFormer:
    return inherit(teacher, front="focusing", tokens=tokens, truncate=2, tune=2, freeze=2, focusing_width=64).student


def test_coarse_tokens__are_the_teachers_own_on_a_smaller_image() -> None:
    teacher = vit()
    low = load_teacher(teacher.network, image_size=32)
    small = F.interpolate(views(3), size=(32, 32), mode="bilinear", antialias=True)
    theirs = low.block_inputs(small)
    for depth in (0, 2):
        ours = coarse_tokens(teacher, views(3), tokens=16, depth=depth)
        torch.testing.assert_close(ours, theirs[depth], rtol=0, atol=2e-5)


def test_ridge_regression__finds_a_linear_map_again() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(3, 5, generator=generator), torch.randn(3, generator=generator)
    inputs = torch.randn(4000, 5, generator=generator) * torch.tensor([0.1, 1.0, 10.0, 1.0, 1.0]) + 4
    found = ridge_regression(inputs, F.linear(inputs, weight, bias))
    torch.testing.assert_close(found.weight, weight, rtol=0.02, atol=0.02)
    torch.testing.assert_close(F.linear(inputs, *found).mean(dim=0), F.linear(inputs, weight, bias).mean(dim=0))


def test_fit_start__tokens_are_near_those_of_the_coarse_teacher_on_other_images_too() -> None:
    teacher = vit()
    student = new(teacher).eval()
    train, other = views().split([64, 32])
    wanted = coarse_tokens(teacher, other, tokens=16, depth=2)[:, 1:]

    def left() -> float:
        with torch.inference_mode():
            ours = student.focusing(student.normalise(other)).tokens
        return float((wanted - ours).flatten(0, 1).var(dim=0).sum() / wanted.flatten(0, 1).var(dim=0).sum())

    before = left()
    told = fit_start(student, teacher, train, truncated=2)
    assert before > 1
    assert told < left() < 0.5
    front = cast(FocusingTransformer, student.focusing)
    assert torch.equal(front.initial_rois, cells(16))
    prefix = coarse_tokens(teacher, train, tokens=16, depth=2)[:, :1].mean(dim=0)
    torch.testing.assert_close(student.cortex.prefix.tokens.detach(), prefix)


def test_fit_start__leaves_what_is_inherited_alone_and_everything_learning() -> None:
    teacher = vit()
    student, other = new(teacher), new(teacher)
    fit_start(student, teacher, views(32), truncated=2)
    before, after = other.state_dict(), student.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    last = "focusing.last_sampling"
    assert changed == {
        "focusing.initial_rois",
        "focusing.widen.weight",
        "cortex.prefix.tokens",
        *(f"{last}.{part}.projection.{leaf}" for part in ("mixing", "position") for leaf in ("weight", "bias")),
    }
    assert {name for name, value in student.named_parameters() if value.requires_grad} == {
        name for name, value in other.named_parameters() if value.requires_grad
    }


@pytest.mark.parametrize("options", [{"class_token": False, "global_pool": "avg"}, {"reg_tokens": 2}])
def test_fit_start__other_teachers_and_uneven_rows(options: dict[str, object]) -> None:
    teacher = vit(**options)
    student = new(teacher, tokens=7)
    assert fit_start(student, teacher, views(32), truncated=2) < 1
    assert student(views(2)).embedding.isfinite().all()


def test_fit_start__is_for_the_papers_front() -> None:
    teacher = vit()
    with pytest.raises(TypeError, match="not for a GridFront"):
        fit_start(inherit(teacher, tokens=16).student, teacher, views(2), truncated=2)
