"""A tiny training with a cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparseformers.teachers import Teacher
from sparseformers.train import BootstrapConfig
from tests.train.runs import tiny_settings


@pytest.fixture
def settings(tmp_path: Path) -> BootstrapConfig:
    return tiny_settings(tmp_path, photographs=9).with_(
        samples=12,
        evaluations=1,
        cache_teacher=tmp_path / "cache",
        cached_views=2,
    )


@pytest.fixture
def teacher_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of a teacher had."""
    calls: list[int] = []
    original = Teacher.forward

    def counting(self: Teacher, images: torch.Tensor) -> object:
        calls.append(len(images))
        return original(self, images)

    monkeypatch.setattr(Teacher, "forward", counting)
    return calls
