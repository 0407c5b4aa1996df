"""Which front a configuration means: chosen here and nowhere else."""

from __future__ import annotations

from sparseformers.config import FocusingConfig, OriginalFocusingConfig
from sparseformers.model.focusing import FocusingTransformer, Front
from sparseformers.model.original import OriginalFocusingTransformer


def build_front(config: FocusingConfig | OriginalFocusingConfig, cortex_width: int) -> Front:
    """The front of a SparseFormer, with starting values.

    Args:
        config: its kind and sizes.
        cortex_width: D, the width of the tokens that it gives.
    """
    if isinstance(config, OriginalFocusingConfig):
        return OriginalFocusingTransformer(config, cortex_width)
    return FocusingTransformer(config, cortex_width)
