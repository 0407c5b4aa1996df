"""A training of a student that chooses its RoIs by a map."""

import os
import signal
from pathlib import Path

import pytest
import torch

from sparseformers.data import ViewKey, images_on
from sparseformers.errors import ConfigError, RunStopped
from sparseformers.evaluation.attention import AttendingTeacher
from sparseformers.train import BootstrapConfig, RunFolder, bootstrap, resume
from tests.refusals import refused
from tests.train.caches import FILES, folders_in, gathered, key_of, prepared
from tests.train.runs import at_each_step, entries, weights


@pytest.fixture
def mixed(settings: BootstrapConfig) -> BootstrapConfig:
    return settings.with_(front="mixed", tokens=10, image_size=64)


def test_bootstrap__fits_the_map_first_measures_it_and_lets_it_learn_along(
    mixed: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap(mixed, tmp_path / "run")
    assert "the fitted map is" in RunFolder(tmp_path / "run").log.read_text(encoding="utf-8")
    for measured in entries(tmp_path / "run", "held_out"):
        assert measured["map_divergence"] >= 0
        assert 0 <= measured["map_overlap"] <= 1
    monkeypatch.setattr("sparseformers.train.objective.MAP_WEIGHT", 0.0)
    bootstrap(mixed, tmp_path / "other")
    learnt, left = (weights(tmp_path / name)["focusing.selector.narrow.bias"] for name in ("run", "other"))
    assert learnt != left


def test_bootstrap__refuses_elastic_tokens_that_no_splits_give_before_anything_is_written(
    mixed: BootstrapConfig, tmp_path: Path
) -> None:
    with refused(ConfigError, "--elastic 8 is impossible: this front has 7, 10, ... 16 tokens, not 8", "Name one of these"):
        bootstrap(mixed.with_(elastic=(8,)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"cached": True}], ids=str)
def test_resume__ends_at_the_same_bytes(
    mixed: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    if options.pop("cached", False):
        options["cache_teacher"] = tmp_path / "cache"
    settings = mixed.with_(checkpoint_every="2steps", **options)
    bootstrap(settings, tmp_path / "whole")
    with monkeypatch.context() as patched:
        at_each_step(patched, lambda _step, _batch, samples: samples == 16 and os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(RunStopped):
            bootstrap(settings, tmp_path / "stopped")
    resume(tmp_path / "stopped")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_cache__keeps_the_maps_of_its_views_and_has_a_key_of_its_own(cached_settings: BootstrapConfig) -> None:
    settings = cached_settings.with_(front="mixed", tokens=7)
    parts = gathered(settings)
    batch = prepared(parts).batch([ViewKey(0, 1), ViewKey(1, 2)])
    answer = AttendingTeacher(parts.teacher)(images_on("cpu", batch.images))
    assert batch.attention_maps is not None
    torch.testing.assert_close(batch.attention_maps.float(), answer.attention_map, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(batch.targets, answer.embedding, atol=1e-5, rtol=1e-4)
    assert parts.cache_folder is not None
    assert set(folders_in(parts.cache_folder)) == FILES | {"attention_maps.npy"}
    assert key_of(settings) != key_of(cached_settings)
