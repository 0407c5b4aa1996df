"""Packing folders of images into tar shards in the format of WebDataset: resumable, verified, the same bytes every time."""

from sparseformers.data.pack.run import PackConfig, PackSummary, pack

__all__ = ["PackConfig", "PackSummary", "pack"]
