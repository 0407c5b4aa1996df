"""Caches that are damaged, made twice at once, or have no room."""

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

from sparseformers.errors import RunError
from sparseformers.teachers import Teacher
from sparseformers.train import BootstrapConfig, bootstrap
from tests.refusals import refused
from tests.train.caches import FILES, folders_in, gathered, prepared

DAMAGE: dict[str, Callable[[Path], object]] = {
    "another key": lambda folder: (folder / "key.json").write_text(json.dumps({"seed": 7})),
    "cut images": lambda folder: os.truncate(folder / "images.npy", (folder / "images.npy").stat().st_size - 1),
    "empty embeddings": lambda folder: (folder / "embeddings.npy").write_bytes(b""),
    "other embeddings": lambda folder: np.save(folder / "embeddings.npy", np.zeros((2, 3), dtype=np.float32)),
    "lost reasons": lambda folder: (folder / "unreadable.json").unlink(),
}


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

    def test_of_two_that_make_the_same_at_once_the_first_one_counts(
        self, cached_settings: BootstrapConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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

    def test_too_little_room_is_refused_before_anything_is_made(
        self, cached_settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
        with pytest.raises(RunError, match=r"needs 0\.0 GiB, but '.*' has 0\.0 GiB left") as caught:
            bootstrap(cached_settings, tmp_path / "run")
        assert "--cached-views" in caught.value.remedy
        assert not (tmp_path / "run").exists()

    def test_a_disk_that_fills_up_leaves_nothing_behind(
        self, cached_settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
