"""Embedding at scale: an index of file names and embeddings from folders and tar shards, streamed and resumable."""

from sparseformers.embedding.config import EmbedConfig
from sparseformers.embedding.run import EmbedSummary, embed

__all__ = ["EmbedConfig", "EmbedSummary", "embed"]
