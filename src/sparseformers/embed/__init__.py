"""Embedding at scale: an index of file names and embeddings from folders and tar shards, streamed and resumable."""

from sparseformers.embed.config import EmbedConfig
from sparseformers.embed.run import EmbedSummary, embed

__all__ = ["EmbedConfig", "EmbedSummary", "embed"]
