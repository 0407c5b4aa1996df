from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparseformers.train.budget import Budget
from sparseformers.train.planning.forecast import Forecast, Pace, forecast, sizes_of, view_bytes

PACE = Pace(step=2.0, held_out=30.0, saving=1.0)


def of(budget: Budget, **options: Any) -> Forecast:
    """On one device: batches of 10 images, 3 measurements, checkpoints of 2.5 models every 500 seconds."""
    common: dict[str, Any] = {"batch": 10, "devices": 1, "efficiency": 1.0, "evaluations": 3}
    return forecast(budget, PACE, **(common | {"checkpoint_seconds": 500.0, "checkpoint_models": 2.5} | options))


def test_a_number_of_images() -> None:
    plan = of(Budget(samples=5000, seconds=None))
    assert (plan.samples, plan.steps) == (5000, 500)
    assert plan.stepping == 1000
    assert plan.measuring == 90
    assert plan.saving == 3 * 2 + 3 * 2.5  # at 500 and 1000 seconds, and at the end
    assert plan.seconds == 1000 + 90 + 13.5
    assert plan.images_per_second == 5


def test_devices_share_steps_and_measurements_but_not_writing() -> None:
    plan = of(Budget(samples=5000, seconds=None), devices=8)
    assert plan.steps == 63
    assert plan.stepping == 125
    assert plan.measuring == 90 / 8
    assert plan.saving == 3 * 2 + 2.5
    assert plan.images_per_second == 40
    slower = of(Budget(samples=5000, seconds=None), devices=8, efficiency=0.5)
    assert (slower.steps, slower.stepping, slower.measuring) == (63, 250, 90 / 4)


def test_a_time_is_kept_and_what_is_left_of_it_is_learnt_in() -> None:
    plan = of(Budget(samples=None, seconds=1000.0))
    assert plan.seconds == 1000
    assert plan.stepping == 1000 - 90 - 6 - 2 * 2.5
    assert plan.samples == 899 * 5
    assert plan.steps == 450


def test_a_time_too_short_for_its_measurements_is_a_step() -> None:
    plan = of(Budget(samples=None, seconds=10.0))
    assert (plan.samples, plan.steps) == (10, 1)


def test_billions_of_images_are_whole_numbers() -> None:
    plan = of(Budget(samples=1_300_000_000, seconds=None), devices=64)
    assert plan.steps == 2_031_250
    assert plan.stepping == 2_031_250 * PACE.step


def test_sizes__are_those_of_the_real_optimiser() -> None:
    student = nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 50).requires_grad_(False))
    learning = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learning)
    student(torch.ones(2, 30)).sum().backward()
    optimiser.step()
    moments = [value for state in optimiser.state.values() for value in state.values() if value.ndim > 0]
    sizes = sizes_of(student)
    assert sizes.model == sum(value.nbytes for value in student.state_dict().values())
    assert sizes.optimiser == sum(value.nbytes for value in moments)
    assert sizes.checkpoint == sizes.model + sizes.optimiser


def test_view_bytes__pixels_and_an_embedding() -> None:
    assert view_bytes((112, 96), 384) == 3 * 112 * 96 + 4 * 384
