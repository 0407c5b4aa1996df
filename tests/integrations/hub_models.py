"""What the tests of folders and repositories share: a student with a provenance, and a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import sparseformers
from sparseformers.inheritance import Provenance, Shares
from sparseformers.train import RunSummary, bootstrap
from tests.model.small import small_model
from tests.train.runs import tiny_settings

FILES = {"model.safetensors", "config.json", "README.md"}
PROVENANCE = Provenance(
    teacher="timm:vit_x@/home/someone/secret/weights.safetensors",
    teacher_fingerprint="abc",
    shares=Shares(truncate=1, tune=2, freeze=3),
    image_size=(64, 48),
    crop=0.9,
)


def student(**options: Any) -> sparseformers.SparseFormer:
    return sparseformers.SparseFormer.of(small_model(**options), provenance=PROVENANCE)


def check_same_function(one: Any, other: Any) -> None:
    images = torch.rand(2, 3, 48, 64)
    for ours, theirs in zip(one(images), other(images), strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


class Run:
    """A finished run of a tiny student."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run"
        self.summary: RunSummary = bootstrap(tiny_settings(folder), self.path)
