"""The network, one file per box of the paper's figure: stem, sampling, mixing, position, focusing, cortex; composed in
``sparseformer``. Two other fronts: ``original`` of v1, the original SparseFormer, and ``inherited``, which starts as the teacher
at a lower resolution and reads the image through ``pyramid``; ``front`` chooses among the three.

Legend: B batch, N latent tokens, P sampling points per token, C stem channels, F focusing width, D cortex width,
R prefix tokens, T = R + N. Images travel as [0, 1]; RoIs are (x1, y1, x2, y2) in [0, 1] of the image, x to the right.
"""

from sparseformers.model.block import recompute_blocks
from sparseformers.model.cortex import CortexTransformer
from sparseformers.model.focusing import Focus, FocusingTransformer, Front
from sparseformers.model.front import build_front
from sparseformers.model.original import OriginalFocusingTransformer
from sparseformers.model.sparseformer import SparseFormer, SparseFormerOutput, WithTokens

__all__ = [
    "CortexTransformer",
    "Focus",
    "FocusingTransformer",
    "Front",
    "OriginalFocusingTransformer",
    "SparseFormer",
    "SparseFormerOutput",
    "WithTokens",
    "build_front",
    "recompute_blocks",
]
