"""What the tests of folders and repositories share: a student with a provenance."""

from typing import Any

import torch

import sparseformers
from sparseformers.inheritance import Provenance, Shares
from tests.model.small import small_model

FILES = {"model.safetensors", "config.json", "README.md"}
TEACHER, SHARES = "timm:vit_x@/home/someone/secret/weights.safetensors", Shares(truncate=1, tune=2, freeze=3)
PROVENANCE = Provenance(teacher=TEACHER, teacher_fingerprint="abc", shares=SHARES, image_size=(64, 48), crop=0.9)


def student(**options: Any) -> sparseformers.SparseFormer:
    return sparseformers.SparseFormer.of(small_model(**options), provenance=PROVENANCE)


def check_same_function(one: Any, other: Any) -> None:
    images = torch.rand(2, 3, 48, 64)
    for ours, theirs in zip(one(images), other(images), strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
