"""Students made ready for inference: the same function with less to compute each time, and weights in the processor's layout."""

from sparseformers.inference.embedding import FoldedEmbedding, fold_embedding
from sparseformers.inference.folding import FoldedSparseFormer, fold
from sparseformers.inference.packing import pack_weights

__all__ = ["FoldedEmbedding", "FoldedSparseFormer", "fold", "fold_embedding", "pack_weights"]
