"""Which front a configuration means: chosen here and nowhere else."""

from __future__ import annotations

from sparseformers.config import CortexConfig, FocusingConfig, GridConfig, OriginalFocusingConfig
from sparseformers.model.focusing import FocusingTransformer, Front
from sparseformers.model.grid import GridFront
from sparseformers.model.original import OriginalFocusingTransformer


def build_front(config: FocusingConfig | OriginalFocusingConfig | GridConfig, cortex: CortexConfig) -> Front:
    """The front of a SparseFormer, with starting values.

    Args:
        config: its kind and sizes.
        cortex: what comes after it: its width, and for an inherited front the form of the blocks and the prefix tokens.
    """
    if isinstance(config, OriginalFocusingConfig):
        return OriginalFocusingTransformer(config, cortex.block.width)
    if isinstance(config, GridConfig):
        return GridFront(config, cortex)
    return FocusingTransformer(config, cortex.block.width)
