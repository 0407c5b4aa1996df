"""Embedding at scale: an index of file names and embeddings from folders and tar shards, streamed and resumable."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
