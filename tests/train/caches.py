"""Caches for tests: how they are made, and what is in them."""

from pathlib import Path

import torch
from rich.console import Console

from sparseformers.data import Batch, SampleStream
from sparseformers.processes import make_accelerator
from sparseformers.train import BootstrapConfig
from sparseformers.train.setup import Parts, gather_parts
from sparseformers.train.view_cache import ViewCache, prepare_cache

FILES = {"embeddings.npy", "images.npy", "key.json", "unreadable.json"}


def gathered(settings: BootstrapConfig) -> Parts:
    return gather_parts(settings, device=torch.device("cpu"))


def prepared(parts: Parts) -> ViewCache:
    return prepare_cache(parts, make_accelerator(), Console(quiet=True))


def stream_of(parts: Parts, total: int, **place: int) -> SampleStream:
    return SampleStream(len(parts.train), batch_size=4, seed=parts.settings.optimisation.seed, total=total, **place)


def key_of(settings: BootstrapConfig) -> str:
    return gathered(settings).cache_key.digest


def folders_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def assert_same_samples(cached: Batch, made: Batch) -> None:
    assert torch.equal(cached.images, made.images)
    assert torch.equal(cached.indices, made.indices)
    assert cached.indices.dtype == made.indices.dtype
    assert cached.unreadable == made.unreadable
