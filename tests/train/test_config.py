from __future__ import annotations

from pathlib import Path

import pytest

from sparseformers.errors import ConfigError
from sparseformers.settings import from_dict, to_dict
from sparseformers.train import BootstrapConfig
from sparseformers.train.budget import Budget


def settings(**options: object) -> BootstrapConfig:
    return BootstrapConfig(**{"teacher": "bundled", "data": (Path("photos"),), **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, "--tokens must be at least 1, not 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"holdout": 1.0}, r"--holdout must be in \[0, 1\)"),
        ({"holdout": -0.1}, r"--holdout must be in \[0, 1\)"),
        ({"lr": 0.0}, "--lr must be above 0"),
        ({"lr": float("nan")}, "--lr must be above 0"),
        ({"minutes": -1.0}, "--minutes must be above 0"),
        ({"crop": 1.5}, r"--crop must be in \(0, 1\]"),
        ({"crop_scale": 0.0}, r"--crop-scale must be in \(0, 1\], not 0\.0\..*Use 0\.25, for example"),
        ({"crop_scale": 1.01}, r"--crop-scale must be in \(0, 1\], not 1\.01"),
        ({"layer_decay": 0.0}, r"--layer-decay must be in \(0, 1\], not 0\.0\..*Use 0\.75, for example"),
        ({"layer_decay": 1.5}, r"--layer-decay must be in \(0, 1\], not 1\.5"),
        ({"layer_decay": float("nan")}, r"--layer-decay must be in \(0, 1\], not nan"),
        ({"ema": 1.0}, r"--ema must be in \[0, 1\), not 1\.0\..*Choose a value in that range"),
        ({"ema": -0.1}, r"--ema must be in \[0, 1\), not -0\.1"),
        ({"image_size": 8}, "--image-size must be at least 32"),
        ({"data": ()}, "No folder with images was given"),
        ({"epochs": 1.0, "minutes": 2.0}, "given 2 times"),
    ],
)
def test_settings__out_of_range_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**options)


def test_settings__bounds_that_are_values() -> None:
    chosen = settings(ema=0.0, layer_decay=1.0, crop_scale=1.0)
    assert (chosen.ema, chosen.layer_decay, chosen.crop_scale) == (0.0, 1.0, 1.0)


def test_settings__round_trip_through_json_values() -> None:
    original = settings(eval_data=(Path("a"), Path("b")), minutes=3.0, tokens=15)
    assert from_dict(BootstrapConfig, to_dict(original)) == original


def test_settings__unknown_key_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'lr_rate'\. Did you mean 'lr'"):
        from_dict(BootstrapConfig, {**to_dict(settings()), "lr_rate": 1.0})


def test_budget__samples_epochs_or_minutes() -> None:
    assert Budget.of(settings(samples=70), images=10) == Budget(samples=70, seconds=None)
    assert Budget.of(settings(epochs=2.5), images=10) == Budget(samples=25, seconds=None)
    assert Budget.of(settings(minutes=2.0), images=10) == Budget(samples=None, seconds=120.0)
    assert Budget.of(settings(), images=10) == Budget(samples=100, seconds=None)


def test_budget__progress_is_of_samples_or_of_the_clock() -> None:
    assert Budget(samples=100, seconds=None).progress(samples=25, seconds=9e9) == 0.25
    assert Budget(samples=None, seconds=50.0).progress(samples=10**9, seconds=25.0) == 0.5
    assert Budget(samples=None, seconds=50.0).progress(samples=0, seconds=60.0) == 1.0
