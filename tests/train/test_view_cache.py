"""Caches of views: the same samples as without one, made once for many runs; damaged ones, made twice at once, without room."""

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sparseformers
from sparseformers.data import ViewKey, batch_loader, images_on
from sparseformers.errors import RunError
from sparseformers.teachers import Teacher
from sparseformers.train import BootstrapConfig, RunFolder, Scale, bootstrap, make_plan, resume
from sparseformers.train.objective import teacher_targets
from sparseformers.train.view_cache import make_cache_key
from tests.refusals import refused
from tests.tiny import write_teacher
from tests.train.caches import FILES, assert_same_samples, folders_in, gathered, key_of, prepared, stream_of
from tests.train.ranks import start
from tests.train.ranks_work import command
from tests.train.runs import at_each_step, command_line, weights, write_broken

DAMAGE: dict[str, Callable[[Path], object]] = {
    "another key": lambda folder: (folder / "key.json").write_text(json.dumps({"seed": 7})),
    "cut images": lambda folder: os.truncate(folder / "images.npy", (folder / "images.npy").stat().st_size - 1),
    "empty embeddings": lambda folder: (folder / "embeddings.npy").write_bytes(b""),
    "other embeddings": lambda folder: np.save(folder / "embeddings.npy", np.zeros((2, 3), dtype=np.float32)),
    "lost reasons": lambda folder: (folder / "unreadable.json").unlink(),
}


class TestSamples:
    @pytest.mark.parametrize("options", [{}, {"augment": "strong"}, {"crop_scale": 0.6}], ids=str)
    def test_are_those_of_a_run_without_cache(self, cached_settings: BootstrapConfig, options: dict[str, object]) -> None:
        parts = gathered(cached_settings.with_(**options))
        total = 2 * len(parts.train)
        made = list(batch_loader(parts.training_views(), stream_of(parts, total), workers=0))
        cached = list(prepared(parts).batches(stream_of(parts, total)))
        assert len(cached) == len(made) == 4
        for one, other in zip(cached, made, strict=True):
            assert_same_samples(one, other)
            expected = teacher_targets(parts.teacher, images_on("cpu", other.images), None).embedding
            assert one.targets.dtype == torch.float32
            torch.testing.assert_close(one.targets, expected, rtol=0, atol=1e-5)

    def test_repeat_after_the_cached_epochs(self, cached_settings: BootstrapConfig) -> None:
        cache = prepared(gathered(cached_settings))
        first, second, third = (cache.batch([ViewKey(epoch, 3), ViewKey(epoch, 5)]) for epoch in (0, 1, 2))
        assert not torch.equal(first.images, second.images)
        assert torch.equal(first.images, third.images)
        assert torch.equal(first.targets, third.targets)  # type: ignore[arg-type]

    def test_unreadable_images_are_missing_with_their_reasons(self, cached_settings: BootstrapConfig, tmp_path: Path) -> None:
        write_broken(tmp_path / "photos")
        parts = gathered(cached_settings)
        total = 2 * len(parts.train)
        made = list(batch_loader(parts.training_views(), stream_of(parts, total), workers=0))
        assert any(batch.unreadable for batch in made)
        for one, other in zip(prepared(parts).batches(stream_of(parts, total)), made, strict=True):
            assert_same_samples(one, other)
            assert one.targets.abs().sum(dim=1).gt(0).all()
        broken = next(index for index in range(len(parts.train)) if "broken" in parts.train.name(index))
        for keys, reasons in (([ViewKey(0, broken)], ((broken, "not an image of a known format"),)), ([], ())):
            nothing = prepared(parts).batch(keys)
            assert (nothing.images.shape, nothing.indices.tolist()) == ((0, 3, 0, 0), [])
            assert nothing.unreadable == reasons

    def test_do_not_depend_on_workers(self, cached_settings: BootstrapConfig, tmp_path: Path) -> None:
        alone = prepared(gathered(cached_settings))
        helped = prepared(gathered(cached_settings.with_(workers=2, cache_teacher=tmp_path / "other")))
        assert helped.folder.name == alone.folder.name
        assert np.array_equal(helped.images, alone.images)


class TestReuse:
    def test_runs_the_teacher_once(self, cached_settings: BootstrapConfig, teacher_calls: list[int]) -> None:
        parts = gathered(cached_settings)
        teacher_calls.clear()  # inheriting runs it, too
        first = prepared(parts)
        assert sum(teacher_calls) == 2 * len(first.images[0])
        again = gathered(cached_settings.with_(lr=0.1, samples=100, tokens=2, batch_size=3))
        teacher_calls.clear()
        assert prepared(again).folder == first.folder
        assert teacher_calls == []

    def test_another_setting_is_another_cache(self, cached_settings: BootstrapConfig) -> None:
        others = {"seed": 1, "image_size": 48, "crop": 0.5, "augment": "strong", "crop_scale": 0.5, "cached_views": 3}
        others |= {"precision": "bf16", "holdout": 0.5}
        keys = [key_of(cached_settings), *(key_of(cached_settings.with_(**{name: value})) for name, value in others.items())]
        assert len(set(keys)) == 1 + len(others)

    def test_the_augmentations_own_crop_scale_is_the_same_cache(self, cached_settings: BootstrapConfig) -> None:
        # Nothing else: caches that were made before crops had a scale of their own have to be found.
        expected = {"format", "teacher", "augment", "seed", "cached_views", "precision", "libraries", "images"}
        for augment, own in (("default", 0.25), ("strong", 0.02)):
            keys = [gathered(cached_settings.with_(augment=augment, crop_scale=scale)).cache_key for scale in (None, own)]
            assert keys[0] == keys[1]
            assert set(keys[0].content) == expected
            assert keys[0].content["augment"] == augment

    def test_the_same_weights_with_another_activation_are_another_cache(self, cached_settings: BootstrapConfig) -> None:
        parts = gathered(cached_settings)

        def digest() -> str:
            return make_cache_key(cached_settings, parts.teacher, fingerprint="", precision="fp32", images=parts.train).digest

        before, anatomy = digest(), parts.teacher.anatomy
        block = dataclasses.replace(anatomy.block, activation="quick_gelu")
        parts.teacher.anatomy = dataclasses.replace(anatomy, block=block)
        assert digest() != before

    def test_other_images_or_weights_are_another_cache(self, cached_settings: BootstrapConfig, tmp_path: Path) -> None:
        before = key_of(cached_settings)
        (tmp_path / "photos").rename(tmp_path / "moved")
        cached_settings = cached_settings.with_(data=(tmp_path / "moved",))
        assert key_of(cached_settings) == before
        os.utime(gathered(cached_settings).train.name(0), ns=(0, 0))
        touched = key_of(cached_settings)
        write_teacher(tmp_path / "teacher.safetensors", classes=4)
        assert len({before, touched, key_of(cached_settings)}) == 3


def test_plan__tells_the_size_of_the_cache(cached_settings: BootstrapConfig) -> None:
    size = sum(path.stat().st_size for path in prepared(gathered(cached_settings)).folder.iterdir())
    plan = make_plan(cached_settings, Scale(measure_seconds=0.01), device=torch.device("cpu"))
    assert plan.cache_gib == pytest.approx(size / 2**30, rel=0.02)


def test_bootstrap__learns_what_it_learns_without(
    cached_settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_broken(tmp_path / "photos")
    losses: list[float] = []
    at_each_step(monkeypatch, after=lambda _step, figures: losses.append(figures.loss.item()))
    first = bootstrap(cached_settings, tmp_path / "first")
    bootstrap(cached_settings, tmp_path / "second")
    without = bootstrap(cached_settings.with_(cache_teacher=None), tmp_path / "without")
    steps = len(losses) // 3
    assert steps > 1
    assert losses[:steps] == losses[steps : 2 * steps]
    assert losses[:steps] == pytest.approx(losses[2 * steps :], abs=1e-5)
    assert weights(tmp_path / "first") == weights(tmp_path / "second")
    assert set(folders_in(first.view_cache)) == FILES
    assert without.view_cache is None
    assert first.skipped == without.skipped >= 1
    listed = [(tmp_path / name / "skipped_images.txt").read_text() for name in ("first", "without")]
    assert listed[0] == listed[1]
    resolved = RunFolder(tmp_path / "second").read_config()["resolved"]
    assert resolved["view_cache"] == {"folder": str(first.view_cache), "key": first.view_cache.name}
    assert "makes the cache of views" in (tmp_path / "first" / "train.log").read_text()
    assert "uses the cache of views" in (tmp_path / "second" / "train.log").read_text()
    assert resume(tmp_path / "second").view_cache == first.view_cache


@pytest.mark.slow
def test_bootstrap__the_other_processes_wait_for_the_cache(cached_settings: BootstrapConfig, tmp_path: Path) -> None:
    options = ["--lr", "1e-4", "--batch-size", "4", "--samples", "12", "--evaluations", "1", "--workers", "0"]
    options += ["--cached-views", "2", "--cache-teacher", str(tmp_path / "cache"), "--out", str(tmp_path / "two")]
    group = start(2, command, command_line(tmp_path, *options, photographs=9), output=tmp_path / "output")
    assert group.join() == [0, 0], group.said(0)
    bootstrap(cached_settings, tmp_path / "one")
    assert folders_in(tmp_path / "cache") == [key_of(cached_settings)]
    one, two = (sparseformers.load(tmp_path / name).state_dict() for name in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-4)


class TestDamage:
    def test_a_damaged_cache_is_made_again(self, cached_settings: BootstrapConfig, caplog: pytest.LogCaptureFixture) -> None:
        parts = gathered(cached_settings)
        first = prepared(parts)
        images, embeddings = np.array(first.images), np.array(first.embeddings)
        for name, damage in DAMAGE.items():
            caplog.clear()
            damage(first.folder)
            again = prepared(parts)
            assert "is damaged" in caplog.text, name
            assert np.array_equal(again.images, images), name
            assert np.array_equal(again.embeddings, embeddings), name
            assert folders_in(first.folder.parent) == [first.folder.name]
            assert set(folders_in(first.folder)) == FILES

    def test_of_two_makers_the_first_counts(self, cached_settings: BootstrapConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        parts, others = gathered(cached_settings), []
        original = Teacher.forward

        def overtaken(self: Teacher, images: torch.Tensor) -> object:
            monkeypatch.setattr(Teacher, "forward", original)
            others.append(prepared(parts))
            return original(self, images)

        monkeypatch.setattr(Teacher, "forward", overtaken)
        cache = prepared(parts)
        assert cache.folder == others[0].folder
        assert np.array_equal(cache.images, others[0].images)
        assert folders_in(cache.folder.parent) == [cache.folder.name]
        assert cache.images.filename == others[0].images.filename  # type: ignore[attr-defined]

    def test_too_little_room(self, cached_settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
        with pytest.raises(RunError, match=r"needs [\d.]+ \w+, but '.*' has 1\.0 kB left") as caught:
            bootstrap(cached_settings, tmp_path / "run")
        assert "--cached-views" in caught.value.remedy
        assert not (tmp_path / "run").exists()

    def test_a_full_disk(self, cached_settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        parts = gathered(cached_settings)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"no room left to write the cache of views .*No space left on device") as caught:
            prepared(parts)
        assert "Free some space" in caught.value.remedy
        assert folders_in(tmp_path / "cache") == []

    def test_a_folder_that_is_a_file(self, cached_settings: BootstrapConfig, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("")
        with refused(RunError, "cannot be written", "--cache-teacher"):
            bootstrap(cached_settings, tmp_path / "run")
        assert not (tmp_path / "run").exists()
