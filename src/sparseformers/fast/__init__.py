"""Students made ready for inference: the same function with less to compute each time, and weights in the processor's layout."""

from sparseformers.fast.fold import FoldedSparseFormer, fold
from sparseformers.fast.packing import pack_weights

__all__ = ["FoldedSparseFormer", "fold", "pack_weights"]
