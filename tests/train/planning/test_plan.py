"""Plans beside what they are plans of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sparseformers.errors import ConfigError, DataError
from sparseformers.train import BootstrapConfig, Plan, PlanConfig, Scale, bootstrap, plan_of
from sparseformers.train.planning.plan import ASSUMED_BYTES_PER_IMAGE
from tests.tiny import SIDE
from tests.train.runs import changed, tiny_settings

SHORT = 0.01
"""Seconds of measuring."""


@pytest.fixture
def settings(tmp_path: Path) -> BootstrapConfig:
    return tiny_settings(tmp_path)


def planned(settings: BootstrapConfig, *, images: float | None = None, **options: Any) -> Plan:
    scale = {name: options.pop(name) for name in list(options) if name in Scale.__dataclass_fields__}
    config = PlanConfig.of(**{**settings.flat(), **options})
    return plan_of(config, Scale(images=images, measure_seconds=SHORT, **scale), device=torch.device("cpu"))


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> BootstrapConfig:
    return tiny_settings(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def without_images(shared_settings: BootstrapConfig) -> Plan:
    return planned(shared_settings, images=1.3e9, devices=64, data=(), samples=None)


def test_plan__without_images_is_of_as_many_as_are_named(without_images: Plan) -> None:
    plan = without_images
    assert (plan.train_images, plan.samples) == (1_300_000_000, 1_300_000_000)  # each of them once
    assert isinstance(plan.samples, int)
    assert plan.steps == -(-1_300_000_000 // (64 * 4))
    assert plan.seconds == pytest.approx(plan.steps * plan.measured.step, rel=0.01)
    assert plan.images_per_second == pytest.approx(64 * 4 / plan.measured.step)
    assert plan.bytes_per_second == pytest.approx(ASSUMED_BYTES_PER_IMAGE * plan.images_per_second)
    assert not plan.measured.reads
    assert plan.measured.reading is None


def test_plan__states_what_it_assumes(without_images: Plan) -> None:
    assumed = " ".join(without_images.assumptions)
    for part in ("like this one", "64 devices, perfect scaling", "--batch-size 256", "random images", "110 kB", "Not counted"):
        assert part in assumed, part


def test_plan__parts_of_a_step_are_timed(without_images: Plan) -> None:
    parts = without_images.measured.parts
    assert min(parts.teacher, parts.forward, parts.backward, parts.optimiser) > 0
    assert without_images.measured.saving > 0
    assert without_images.measured.held_out_image > 0


def test_plan__reads_the_images_that_are_there(settings: BootstrapConfig) -> None:
    plan = planned(settings)
    assert (plan.train_images, plan.held_out_images, plan.samples, plan.steps) == (10, 2, 24, 6)
    sizes = [path.stat().st_size for path in Path(settings.data.data[0]).iterdir()]
    assert min(sizes) <= plan.bytes_per_image <= max(sizes)
    assert plan.measured.reads
    assert plan.measured.reading is not None
    assert plan.measured.reading > 0
    assert 0 < plan.measured.data_wait < 1  # no reading process: all of the reading is waited for
    assert "images read from --data" in " ".join(plan.assumptions)


def test_plan__a_cached_teacher_costs_no_step_and_fewer_bytes(shared_settings: BootstrapConfig, tmp_path: Path) -> None:
    plan = planned(shared_settings, images=1e6, data=(), samples=None, cache_teacher=tmp_path / "cache", cached_views=2)
    assert plan.training_cost.teacher_forward == 0
    assert plan.measured.parts.teacher == 0
    assert plan.bytes_per_image == 3 * SIDE * SIDE + 4 * 64
    assert plan.cache_gib == pytest.approx(2e6 * plan.bytes_per_image / 2**30)
    assert plan.cache_seconds > 0
    assert not (tmp_path / "cache").exists()


def test_plan__minutes_are_kept(shared_settings: BootstrapConfig) -> None:
    plan = planned(shared_settings, images=1e9, data=(), samples=None, minutes=90.0, holdout_limit=10)
    assert plan.seconds == pytest.approx(5400)
    assert plan.samples == pytest.approx(plan.forecast.stepping * plan.images_per_second, rel=0.01)


@pytest.mark.parametrize(
    ("options", "epochs"), [({}, 1.0), ({"epochs": 3.0}, 3.0), ({"samples": 5}, None), ({"minutes": 1.0}, None)]
)
def test_scale__a_number_of_images_is_seen_once_unless_told_otherwise(options: dict[str, Any], epochs: float | None) -> None:
    settings = PlanConfig.of(teacher="bundled", **options)
    assert Scale(images=1.3e9).length_of(settings).optimisation.epochs == epochs


def test_plan__for_another_device_follows_from_multiply_adds(shared_settings: BootstrapConfig) -> None:
    plan = planned(
        shared_settings, images=1e9, data=(), samples=None, device_tflops=400.0, utilisation=0.5, devices=8, efficiency=0.9
    )
    assert plan.seconds_per_step == pytest.approx(2 * plan.training_cost.total * 4 / 200e12)
    assert plan.images_per_second == pytest.approx(8 * 0.9 * 4 / plan.seconds_per_step)
    assert "Not measured: a device of 400 TFLOP/s" in plan.assumptions[0]
    assert "90% of perfect scaling" in plan.assumptions[1]


def test_plan__elastic_tokens(shared_settings: BootstrapConfig) -> None:
    options: dict[str, Any] = {"front": "grid", "tokens": 16, "elastic": (4,)}
    plan = planned(shared_settings, images=100, data=(), samples=None, **options)
    assert plan.training_cost.student_forward < 0.9 * plan.student_cost.multiply_adds  # the mean of both numbers of tokens
    learning = sum(plan.parameters[group] for group in ("new", "tuned"))
    assert plan.sizes.checkpoint == 4 * sum(plan.parameters.values()) + 8 * learning


def test_plan__needs_images_or_their_number(shared_settings: BootstrapConfig) -> None:
    with pytest.raises(ConfigError, match="Neither images nor their number") as caught:
        planned(shared_settings, data=())
    assert "--images" in caught.value.remedy
    with pytest.raises(DataError, match="does not exist"):
        planned(shared_settings, data=(Path("nowhere"),))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"images": 0.0}, "--images must be a whole number from 1 up"),
        ({"images": 1.5}, "--images must be a whole number from 1 up"),
        ({"images": float("inf")}, "--images must be a whole number from 1 up"),
        ({"images": float("nan")}, "--images must be a whole number from 1 up"),
        ({"devices": 0}, "--devices must be at least 1"),
        ({"efficiency": 0.0}, r"--efficiency must be in \(0, 1\]"),
        ({"efficiency": 1.1}, r"--efficiency must be in \(0, 1\]"),
        ({"utilisation": float("nan")}, r"--utilisation must be in \(0, 1\]"),
        ({"bytes_per_image": 0.0}, "--bytes-per-image must be above 0"),
        ({"device_tflops": -1.0}, "--device-tflops must be above 0"),
        ({"measure_seconds": 0.0}, "--measure-seconds must be above 0"),
    ],
)
def test_scale__refuses_what_makes_no_sense(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Scale(**options)


@pytest.mark.slow
def test_plan__foretells_a_real_run(settings: BootstrapConfig, tmp_path: Path) -> None:
    """Within a factor of two, for the machine may do something else meanwhile."""
    longer = changed(settings, samples=None, minutes=1 / 3, evaluations=5)
    before = plan_of(PlanConfig(**vars(longer)), Scale(measure_seconds=4), device=torch.device("cpu"))
    summary = bootstrap(longer, tmp_path / "run")
    after = plan_of(PlanConfig(**vars(longer)), Scale(measure_seconds=4), device=torch.device("cpu"))
    foretold = (before.samples + after.samples) / 2
    assert foretold / 2 < summary.samples < foretold * 2
