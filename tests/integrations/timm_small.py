"""Small networks with timm's interface, and images as timm gives them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparseformers.integrations.timm_network import TimmSparseFormer
from sparseformers.model import SparseFormer
from tests.integrations.kinds import student_of


def network_of(kind: str, *, trained: bool = True, **options: Any) -> TimmSparseFormer:
    """One of a kind of :data:`tests.integrations.kinds.KINDS`, in evaluation mode."""
    return TimmSparseFormer(student_of(kind, trained=trained), **options).eval()


def images(batch: int = 2, size: Sequence[int] = (40, 56)) -> Tensor:
    """Normalised images, always the same."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def released(kind: str) -> TimmSparseFormer:
    """Of the same shapes but another function: the position encoding of the released weights in the place of the appendix's."""
    config = student_of(kind).config
    focusing = dataclasses.replace(config.focusing, position_encoding="released")  # type: ignore[call-arg]
    return TimmSparseFormer(SparseFormer(dataclasses.replace(config, focusing=focusing))).eval()
