"""Students made ready for inference: the same function with less to compute each time, and weights in the processor's layout."""

from sparseformers.fast.embedding import FoldedEmbedding, fold_embedding
from sparseformers.fast.fold import FoldedSparseFormer, fold
from sparseformers.fast.packing import pack_weights

__all__ = ["FoldedEmbedding", "FoldedSparseFormer", "fold", "fold_embedding", "pack_weights"]
