"""What the tests of folders and repositories share: a student with a provenance."""

from __future__ import annotations

from typing import Any

import torch

import sparseformers
from sparseformers.inheritance import Provenance, Shares
from tests.model.small import small_model

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
