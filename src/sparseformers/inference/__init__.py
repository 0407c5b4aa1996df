"""Students made ready for inference: the same function with less to compute each time, and weights in the processor's layout."""

from sparseformers.inference.folding import FoldedEmbedding, FoldedSparseFormer, fold, fold_embedding
from sparseformers.inference.packing import pack_weights

__all__ = ["FoldedEmbedding", "FoldedSparseFormer", "fold", "fold_embedding", "pack_weights"]
