"""The network, one file per box of the paper's figure: sampling, mixing, focusing, cortex; composed in ``sparseformer``.

Two fronts stand beside the paper's: ``original`` of v1, the original SparseFormer, and ``grid``, which starts as the teacher at a
lower resolution.

Legend: B batch, N latent tokens, P sampling points per token, C stem channels, F focusing width, D cortex width,
R prefix tokens, T = R + N. Images travel as [0, 1]; RoIs are (x1, y1, x2, y2) in [0, 1] of the image, x to the right.
"""

from sparseformers.model.block import recompute_blocks
from sparseformers.model.cortex import CortexTransformer
from sparseformers.model.focusing import FocusingTransformer
from sparseformers.model.front import Front, FrontOutput
from sparseformers.model.original import OriginalFocusingTransformer
from sparseformers.model.sparseformer import SparseFormer, SparseFormerOutput, WithTokens, build_front

__all__ = [
    "CortexTransformer",
    "FocusingTransformer",
    "Front",
    "FrontOutput",
    "OriginalFocusingTransformer",
    "SparseFormer",
    "SparseFormerOutput",
    "WithTokens",
    "build_front",
    "recompute_blocks",
]
