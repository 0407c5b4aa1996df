"""Which front a configuration means: chosen here and nowhere else."""

from __future__ import annotations

from sparseformers.config import CortexConfig, FocusingConfig, InheritedFocusingConfig, OriginalFocusingConfig
from sparseformers.model.focusing import FocusingTransformer, Front
from sparseformers.model.inherited import InheritedFocusingTransformer
from sparseformers.model.original import OriginalFocusingTransformer


def build_front(config: FocusingConfig | OriginalFocusingConfig | InheritedFocusingConfig, cortex: CortexConfig) -> Front:
    """The front of a SparseFormer, with starting values.

    Args:
        config: its kind and sizes.
        cortex: what comes after it: its width, and for an inherited front the form of the blocks and the prefix tokens.
    """
    if isinstance(config, OriginalFocusingConfig):
        return OriginalFocusingTransformer(config, cortex.block.width)
    if isinstance(config, InheritedFocusingConfig):
        return InheritedFocusingTransformer(config, cortex)
    return FocusingTransformer(config, cortex.block.width)
