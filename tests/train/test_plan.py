"""Plans beside the runs that they are of, and the arithmetic from one device to many."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparseformers.errors import ConfigError
from sparseformers.train import BootstrapConfig, PlanConfig, Scale, TrainingPlan, bootstrap, make_plan
from sparseformers.train.lengths import Budget
from sparseformers.train.plan import ASSUMED_BYTES_PER_IMAGE, checkpoint_sizes, forecast
from sparseformers.train.rehearsal import Rehearsal, write_photographs
from tests.tiny import SIDE

CPU = torch.device("cpu")
WITHOUT_IMAGES: dict[str, Any] = {"data": (), "samples": None}


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of a step and all else are known beforehand."""
    times = Rehearsal(step=0.5, data_wait=0.25, measuring_image=0.1, saving=0.1, memory_gib=1.0)
    monkeypatch.setattr("sparseformers.train.plan.rehearse", lambda *_given, **_named: times)


def planned(settings: BootstrapConfig, **options: Any) -> TrainingPlan:
    scale = {name: options.pop(name) for name in list(options) if name in Scale.__dataclass_fields__}
    config = PlanConfig.of(**{**settings.flat(), **options})
    return make_plan(config, Scale(**{"measure_seconds": 0.01, **scale}), device=CPU)


def test_plan__without_images_is_of_as_many_as_are_named_and_states_what_it_assumes(shared_settings: BootstrapConfig) -> None:
    plan = planned(shared_settings, images=1.3e9, devices=64, batch_size=256, **WITHOUT_IMAGES)
    assert (plan.train_images, plan.samples, plan.held_out_images) == (1_300_000_000, 1_300_000_000, 1000)  # each of them once
    assert (plan.batch_size, plan.steps) == (256, 5_078_125)
    assert plan.seconds_per_step == plan.rehearsal.step  # with 4 images on each device
    assert plan.seconds == pytest.approx(plan.steps * plan.rehearsal.step, rel=0.01)
    assert plan.images_per_second == pytest.approx(256 / plan.rehearsal.step)
    assert plan.bytes_per_second == pytest.approx(ASSUMED_BYTES_PER_IMAGE * plan.images_per_second)
    assert min(plan.rehearsal.measuring_image, plan.rehearsal.saving, plan.rehearsal.memory_gib) > 0
    assumed = " ".join(plan.assumptions)
    for part in ("like this one", "64 devices, perfect scaling: 4 images a step on each", "110 kB", "Not counted"):
        assert part in assumed, part


def test_plan__reads_the_images_that_are_there(shared_settings: BootstrapConfig) -> None:
    plan = planned(shared_settings)
    assert (plan.train_images, plan.held_out_images, plan.samples, plan.steps) == (10, 2, 24, 6)
    sizes = [path.stat().st_size for path in Path(shared_settings.data.data[0]).iterdir()]
    assert min(sizes) <= plan.bytes_per_image <= max(sizes)
    assert 0 < plan.rehearsal.data_wait < 1  # no reading process: all of the reading is waited for
    assert "kB" not in " ".join(plan.assumptions)


@pytest.mark.usefixtures("rehearsed")
def test_plan__a_cached_teacher_costs_no_step_and_fewer_bytes(shared_settings: BootstrapConfig, tmp_path: Path) -> None:
    plan = planned(shared_settings, images=1e6, cache_teacher=str(tmp_path / "cache"), cached_views=2, **WITHOUT_IMAGES)
    assert plan.multiply_adds.teacher_forward == 0
    assert plan.bytes_per_image == 3 * SIDE * SIDE + 4 * 64
    assert plan.cache_gib == pytest.approx(2e6 * plan.bytes_per_image / 2**30)
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("rehearsed")
def test_plan__minutes_are_kept(shared_settings: BootstrapConfig) -> None:
    plan = planned(shared_settings, images=1e9, minutes=90.0, holdout_limit=10, **WITHOUT_IMAGES)
    assert plan.seconds == pytest.approx(5400)
    assert 0 < plan.samples < 5400 * plan.images_per_second


@pytest.mark.usefixtures("rehearsed")
def test_plan__for_another_device_follows_from_multiply_adds(shared_settings: BootstrapConfig) -> None:
    options = {"device_tflops": 400.0, "utilisation": 0.5, "devices": 2, "efficiency": 0.9}
    plan = planned(shared_settings, images=1e9, **options, **WITHOUT_IMAGES)
    assert plan.seconds_per_step == pytest.approx(2 * plan.multiply_adds.total * 4 / (2 * 0.9 * 200e12))
    assert "Not measured: a device of 400 TFLOP/s" in plan.assumptions[0]
    assert "90% of perfect scaling" in plan.assumptions[1]


@pytest.mark.usefixtures("rehearsed")
def test_plan__elastic_tokens_cost_their_mean(shared_settings: BootstrapConfig) -> None:
    options: dict[str, Any] = {"images": 100, "front": "grid", "tokens": 16, **WITHOUT_IMAGES}
    alone, elastic = planned(shared_settings, **options), planned(shared_settings, elastic=(4,), **options)
    assert elastic.multiply_adds.student_forward < 0.9 * alone.multiply_adds.student_forward


def test_scale__refuses_what_makes_no_sense() -> None:
    for options, problem in (
        ({"images": 0.0}, "--images must be"),
        ({"images": 1.5}, "--images must be a whole number"),
        ({"images": math.nan}, "--images must be"),
        ({"devices": 0}, "--devices must be at least 1"),
        ({"efficiency": 0.0}, r"--efficiency must be in \(0, 1\]"),
        ({"utilisation": math.nan}, r"--utilisation must be in \(0, 1\]"),
        ({"bytes_per_image": 0.0}, "--bytes-per-image must be above 0"),
        ({"device_tflops": -1.0}, "--device-tflops must be above 0"),
        ({"measure_seconds": 0.0}, "--measure-seconds must be above 0"),
    ):
        with pytest.raises(ConfigError, match=problem):
            Scale(**options)  # type: ignore[arg-type]


def test_forecast__of_images_and_of_seconds() -> None:
    given: dict[str, Any] = {"batch": 10, "step": 2.0, "between": 96.0, "checkpoint": 2.5, "checkpoint_every": 500.0}
    assert forecast(Budget(samples=5000, seconds=None), **given) == (5000, 1000 + 96 + 3 * 2.5)  # at 500, 1000 and the end
    assert forecast(Budget(samples=None, seconds=1000.0), **given) == (899 * 5, 1000.0)
    assert forecast(Budget(samples=None, seconds=10.0), **given)[0] == 10  # too short for its measurements: a step


def test_checkpoint_sizes__are_those_of_the_real_optimiser() -> None:
    student = nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 50).requires_grad_(False))
    optimiser = torch.optim.AdamW([parameter for parameter in student.parameters() if parameter.requires_grad])
    student(torch.ones(2, 30)).sum().backward()
    optimiser.step()
    moments = [value for state in optimiser.state.values() for value in state.values() if value.ndim > 0]
    model, checkpoint = checkpoint_sizes(student)
    assert model == sum(value.nbytes for value in student.state_dict().values())
    assert checkpoint == model + sum(value.nbytes for value in moments)


def test_write_photographs__are_about_as_large_as_assumed(tmp_path: Path) -> None:
    sizes = [path.stat().st_size for path in write_photographs(tmp_path / "photographs", 4).iterdir()]
    assert sum(sizes) / 4 == pytest.approx(ASSUMED_BYTES_PER_IMAGE, rel=0.1)


@pytest.mark.slow
def test_plan__foretells_a_real_run(shared_settings: BootstrapConfig, tmp_path: Path) -> None:
    """Within a factor of two, for the machine may do something else meanwhile."""
    longer = shared_settings.with_(samples=None, minutes=1 / 6, evaluations=5)
    before = make_plan(longer, Scale(measure_seconds=3), device=CPU)
    summary = bootstrap(longer, tmp_path / "run")
    after = make_plan(longer, Scale(measure_seconds=3), device=CPU)
    foretold = (before.samples + after.samples) / 2
    assert foretold / 2 < summary.samples < foretold * 2
