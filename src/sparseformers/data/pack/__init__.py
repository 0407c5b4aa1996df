"""Packing folders of images into tar shards in the format of WebDataset: resumable, verified, the same bytes every time."""

from sparseformers.data.pack.config import PackConfig
from sparseformers.data.pack.run import PackSummary, pack

__all__ = ["PackConfig", "PackSummary", "pack"]
