import io
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

from sparseformers.data import Batch, ViewKey, images_on
from sparseformers.errors import ConfigError, RunStopped
from sparseformers.evaluation.attention import AttendingTeacher, measure_map
from sparseformers.integrations.card import read_figures
from sparseformers.saving import load
from sparseformers.train import BootstrapConfig, RunFolder, bootstrap, resume, run
from sparseformers.train.callbacks.held_out_record import HeldOutRecord
from sparseformers.train.setup import FrontFit
from sparseformers.train.step import TrainingStep
from tests.refusals import refused
from tests.train.caches import FILES, folders_in, gathered, key_of, prepared
from tests.train.report.parsed import decoded, parse
from tests.train.runs import at_each_step, entries, tiny_settings, weights


@pytest.fixture
def mixed(shared_settings: BootstrapConfig) -> BootstrapConfig:
    return shared_settings.with_(front="mixed", tokens=10)


@pytest.fixture(scope="module")
def mixed_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of it, to be read."""
    folder = tmp_path_factory.mktemp("mixed")
    bootstrap(tiny_settings(folder).with_(front="mixed", tokens=10, evaluations=2), folder / "run")
    return RunFolder(folder / "run")


def test_map__is_fitted_measured_and_learns(mixed_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the fitted map is" in mixed_run.log.read_text(encoding="utf-8")
    for measured in entries(mixed_run.path, "held_out"):
        assert measured["map_divergence"] >= 0
        assert 0 <= measured["map_overlap"] <= 1
    monkeypatch.setattr("sparseformers.train.objective.MAP_WEIGHT", 0.0)
    bootstrap(mixed_run.settings(), tmp_path / "other")
    learnt, left = (weights(run)["focusing.selector.narrow.bias"] for run in (mixed_run.path, tmp_path / "other"))
    assert learnt != left
    first, *_, last = (measured["map_divergence"] for measured in entries(tmp_path / "other", "held_out"))
    assert first == pytest.approx(last, rel=1e-3)  # as nothing that the map sees learns
    assert any(weights(mixed_run.path)["cortex.sizes.tokens"])


def test_elastic__refuses_tokens_that_no_splits_give_before_it_writes(mixed: BootstrapConfig, tmp_path: Path) -> None:
    with refused(ConfigError, "--elastic 8 is impossible: this front has 7, 10, ... 16 tokens, not 8", "Name one of these"):
        bootstrap(mixed.with_(elastic=(8,)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_first_steps__learn_from_the_answers_of_the_fit_and_a_resumed_run_ends_at_the_same_bytes(
    mixed: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, known = mixed.with_(evaluations=1), list[bool]()

    def note(_step: TrainingStep, batch: Batch, _samples: int) -> None:
        known.append(batch.targets is not None)
        if len(known) == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    at_each_step(monkeypatch, note)
    bootstrap(settings, tmp_path / "whole")
    with pytest.raises(RunStopped):
        bootstrap(settings, tmp_path / "stopped")
    resume(tmp_path / "stopped")
    assert known == [*(6 * [True]), *(3 * [True]), *(3 * [False])]
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    bootstrap(settings.with_(accumulate=2), tmp_path / "accumulated")  # whose teacher sees half of a batch at once
    assert known[12:] == 6 * [False]


def test_map__is_fitted_within_the_minutes(mixed: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = mixed.with_(samples=None, minutes=0.05, evaluations=1, log_every=1)
    with monkeypatch.context() as patched:
        patched.setattr(run, "fit_front", lambda *_: FrontFit(seconds=2.9))
        assert bootstrap(clock, tmp_path / "late").seconds < 4
    late = entries(tmp_path / "late", "train")[0]
    assert late["seconds"] >= 2.9 > late["lr_tuned"] == 0  # the warm-up starts at the first step
    bootstrap(clock, tmp_path / "run")
    seen = [entries(tmp_path / name, "held_out")[-1]["samples"] for name in ("late", "run")]
    assert seen[1] > 2 * seen[0]


def test_resume__with_maps_of_attention_and_of_features_ends_at_the_same_bytes(
    mixed: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = mixed.with_(checkpoint_every="2steps", accumulate=2, evaluations=1, dense=True, cache_teacher=tmp_path / "cache")
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
    torch.testing.assert_close(batch.attention_maps.float(), answer.attention_map, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(batch.targets, answer.embedding, atol=1e-5, rtol=1e-4)
    assert set(folders_in(parts.cache_folder)) == FILES | {"attention_maps.npy"}
    assert key_of(settings) != key_of(cached_settings)


def test_report__of_a_front_with_a_map_shows_the_map_and_how_near_it_is(mixed_run: RunFolder) -> None:
    page, measured = parse(mixed_run.report), entries(mixed_run.path, "held_out")
    keys = ("centred_cosine", "cosine_mean", "cosine_p05", "constant_baseline", "neighbour_agreement")
    keys += ("map_divergence", "map_overlap")
    assert page.by_id("measurements").values() == [entry[key] for entry in measured for key in keys]
    assert page.by_id("measurements").rows()[0][-2:] == ["map's divergence", "heaviest parts found"]
    (sheet,) = page.by_id("rois").all("img")
    with Image.open(io.BytesIO(decoded(sheet))) as picture:
        assert picture.width > 1000
    assert page.by_id("rois").all("p")[0].text.startswith("After 24 images. The student tells from the glance")
    assert mixed_run.picture.is_file()
    (moment, *_, last) = HeldOutRecord(mixed_run.held_out).moments()
    agreement = measure_map(*last.maps)  # on all held-out images, of which there are few
    assert agreement.divergence == pytest.approx(measured[-1]["map_divergence"], abs=1e-4)
    assert torch.equal(moment.maps[1], last.maps[1])


def test_card__of_a_front_with_a_map_says_how_near_it_is(mixed_run: RunFolder, tmp_path: Path) -> None:
    measured, card = entries(mixed_run.path, "held_out")[-1], mixed_run.card.read_text(encoding="utf-8")
    assert f"teacher's attention | {measured['map_divergence']:.3f} nats |\n" in card
    assert f"that the map finds | {measured['map_overlap']:.1%} |\n" in card
    config = load(mixed_run.path).config
    figures = read_figures(mixed_run.config, config)
    assert figures.map.overlap == measured["map_overlap"]
    content = json.loads(mixed_run.config.read_text(encoding="utf-8"))
    del content["figures"]["map"]  # as an earlier version wrote it
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    earlier = read_figures(tmp_path / "config.json", config)
    assert earlier.map is None
