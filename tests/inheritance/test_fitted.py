"""The fitted starts: of the papers' front, and of a map."""

import functools
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparseformers.inheritance import fitted, inherit
from sparseformers.inheritance.fitted import coarse_tokens, fit_map, fit_start, ridge_regression
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


def bright_spots(count: int) -> tuple[Tensor, Tensor]:
    """Images of 64 pixels with a bright square in one of 16 places, and maps of 8 x 8 that have their mass there."""
    images, maps = torch.full((count, 3, 64, 64), 0.2), torch.full((count, 8, 8), 0.1)
    for number in range(count):
        row, column = divmod(number * 7 % 16, 4)
        images[number, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1
        maps[number, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 10
    return images, maps / maps.sum(dim=(1, 2), keepdim=True)


@functools.cache
def cached_vit() -> Teacher:
    return vit()


def mixed_student() -> SparseFormer:
    return inherit(cached_vit(), front="mixed", tokens=16).student


def test_fit__learns_where_the_teacher_looks_and_nothing_else_changes() -> None:
    images, maps = bright_spots(320)
    student, untouched = mixed_student(), mixed_student()
    fit = fit_map(student, [(images, maps)])
    assert fit.divergence < 0.3 * fit.flat
    output = student.eval()(images[:16])
    smallest = output.rois[:, -1][:, -4:]  # the cells of the deepest level come last
    centres = (smallest[..., :2] + smallest[..., 2:]) / 2
    bright = torch.tensor([[number * 7 % 16 % 4, number * 7 % 16 // 4] for number in range(16)])
    assert (centres // 0.25 == bright[:, None]).flatten(1).all(dim=1).sum() >= 14
    for (name, new), old in zip(student.named_parameters(), untouched.parameters(), strict=True):
        assert name.startswith("focusing.selector.") or torch.equal(new, old)
        assert new.requires_grad == old.requires_grad
        assert new.grad is None


def test_fit__is_a_function_of_the_seed() -> None:
    images, maps = bright_spots(40)
    students = [mixed_student() for _ in range(2)]
    for student in students:
        fit_map(student, [(images, maps)], seed=3)
    for one, other in zip(*(student.parameters() for student in students), strict=True):
        assert torch.equal(one, other)


def test_fit__to_noise_keeps_the_flat_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitted, "FEWEST_STEPS", 90)
    images = torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    fit = fit_map(student := mixed_student(), [(images, torch.full((20, 8, 8), 1 / 64))])
    assert fit.divergence <= fit.flat == pytest.approx(0, abs=1e-5)
    attention_map = student.eval()(images).attention_map
    assert attention_map is not None
    assert attention_map.max() < 1.1 / 16


def test_other_fronts_are_refused() -> None:
    student = inherit(cached_vit(), front="grid").student
    with pytest.raises(TypeError, match="for the papers' front, not for a GridFront"):
        fit_start(student, cached_vit(), views(2), truncated=2)
    with pytest.raises(TypeError, match="for a mixed-resolution front, not for a GridFront"):
        fit_map(student, [bright_spots(2)])
