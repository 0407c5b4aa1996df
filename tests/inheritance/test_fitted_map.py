import functools

import pytest
import torch
from torch import Tensor

from sparseformers.inheritance import fitted_map, inherit
from sparseformers.inheritance.fitted_map import fit_map
from sparseformers.model import SparseFormer
from sparseformers.teachers import Teacher
from tests.inheritance.test_focusing import vit


def bright_spots(count: int) -> tuple[Tensor, Tensor]:
    """Images of 64 pixels with a bright square in one of 16 places, and maps of 8 x 8 that have their mass there."""
    images, maps = torch.full((count, 3, 64, 64), 0.2), torch.full((count, 8, 8), 0.1)
    for number in range(count):
        row, column = divmod(number * 7 % 16, 4)
        images[number, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1
        maps[number, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 10
    return images, maps / maps.sum(dim=(1, 2), keepdim=True)


@functools.cache
def teacher() -> Teacher:
    return vit()


def mixed_student() -> SparseFormer:
    return inherit(teacher(), front="mixed", tokens=16).student


def test_fit__learns_where_the_teacher_looks_and_nothing_else_changes() -> None:
    images, maps = bright_spots(320)
    student, untouched = mixed_student(), mixed_student()
    fit = fit_map(student, images, maps)
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


def test_fit__is_a_function_of_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitted_map, "STEPS", 30)
    images, maps = bright_spots(40)
    students = [mixed_student() for _ in range(2)]
    for student in students:
        fit_map(student, images, maps, seed=3)
    for one, other in zip(*(student.parameters() for student in students), strict=True):
        assert torch.equal(one, other)


def test_fit__to_noise_keeps_the_flat_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitted_map, "STEPS", 90)
    images = torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    fit = fit_map(student := mixed_student(), images, torch.full((20, 8, 8), 1 / 64))
    assert fit.divergence <= fit.flat == pytest.approx(0, abs=1e-5)
    attention_map = student.eval()(images).attention_map
    assert attention_map is not None
    assert attention_map.max() < 1.1 / 16


def test_refuses__other_fronts() -> None:
    with pytest.raises(TypeError, match="not for a GridFront"):
        fit_map(inherit(teacher(), front="grid").student, *bright_spots(2))
