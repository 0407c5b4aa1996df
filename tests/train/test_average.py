from __future__ import annotations

import pytest
import torch

from sparseformers.inheritance import Shares, freeze_inherited
from sparseformers.model import SparseFormer
from sparseformers.train.average import WeightAverage, decay_at
from tests.model.small import scattered, small_model


@pytest.fixture
def student() -> SparseFormer:
    student = small_model(depth=3)
    freeze_inherited(student, Shares(truncate=0, tune=1, freeze=2))
    return student


def weights_of(student: SparseFormer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in student.named_parameters()}


def test_decay_at__rises_to_the_decay() -> None:
    assert decay_at(0, 0.99) == 0.1
    assert decay_at(8, 0.99) == 0.5
    assert decay_at(880, 0.99) < 0.99
    assert decay_at(900, 0.99) == 0.99
    assert decay_at(0, 0.05) == 0.05


def test_weight_average__of_constant_weights_is_these_weights(student: SparseFormer) -> None:
    before, average = weights_of(student), WeightAverage(student, 0.9)
    for _ in range(30):
        average.update()
    assert average.steps == 30
    assert all(torch.equal(value, before[name]) for name, value in average.weights.items())


def test_weight_average__follows_its_definition(student: SparseFormer) -> None:
    average = WeightAverage(student, 0.6)
    expected = weights_of(student)
    for step in range(15):
        scattered(student)
        average.update()
        decay = min(0.6, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in weights_of(student).items()}
    for name, value in average.weights.items():
        torch.testing.assert_close(value, expected[name])
        assert not torch.equal(value, weights_of(student)[name]), name


def test_weight_average__keeps_what_learns_and_nothing_else(student: SparseFormer) -> None:
    learning = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert set(WeightAverage(student, 0.9).weights) == learning < set(weights_of(student))


def test_installed__is_for_as_long_as_it_lasts_even_if_something_fails(student: SparseFormer) -> None:
    average = WeightAverage(student, 0.9)
    scattered(student)
    average.update()
    newest = weights_of(student)
    inside: dict[str, torch.Tensor] = {}

    def look_and_fail() -> None:
        with average.installed():
            inside.update(weights_of(student))
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        look_and_fail()
    for name, value in average.weights.items():
        assert torch.equal(inside[name], value)
        assert not torch.equal(inside[name], newest[name]), name
    after = weights_of(student)
    assert all(torch.equal(after[name], newest[name]) for name in newest)
    average.install()
    assert all(torch.equal(weights_of(student)[name], value) for name, value in average.weights.items())


def test_state_dict__goes_on_where_it_was(student: SparseFormer) -> None:
    average = WeightAverage(student, 0.9)
    scattered(student)
    average.update()
    other = WeightAverage(student, 0.9)
    other.load_state_dict(average.state_dict())
    scattered(student)
    average.update()
    other.update()
    assert other.steps == average.steps == 2
    assert all(torch.equal(other.weights[name], value) for name, value in average.weights.items())
    with pytest.raises(KeyError):
        other.load_state_dict({"steps": 1, "weights": {}})
