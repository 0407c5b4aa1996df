"""The named sizes of the papers."""

from __future__ import annotations

from collections.abc import Mapping

from sparseformers.config import (
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    BlockConfig,
    CortexConfig,
    FocusingConfig,
    OriginalFocusingConfig,
    PreprocessingConfig,
    SparseFormerConfig,
)
from sparseformers.errors import ConfigError, suggest


def _named(
    *, tokens: int, focusing_width: int, width: int, depth: int, projection: int | None = None, classes: int | None = None
) -> SparseFormerConfig:
    """A size of the paper's Table: a CLIP one has a projection, an AugReg one a classifier."""
    clip = projection is not None
    return SparseFormerConfig(
        focusing=FocusingConfig(tokens=tokens, width=focusing_width),
        cortex=CortexConfig(
            block=BlockConfig(
                width=width,
                heads=width // 64,
                feed_forward_width=4 * width,
                activation="quick_gelu" if clip else "gelu",
                norm_eps=1e-5 if clip else 1e-6,
            ),
            depth=depth,
            projection=projection,
            classes=classes,
        ),
        preprocessing=PreprocessingConfig(
            crop=1.0 if clip else 0.9, mean=CLIP_MEAN if clip else HALF, std=CLIP_STD if clip else HALF
        ),
    )


def _original(*, tokens: int, focusing_width: int, width: int, depth: int) -> SparseFormerConfig:
    """A size of v1; its depth counts the cortex layer that samples, which is part of the front here."""
    focusing = OriginalFocusingConfig(tokens=tokens, width=focusing_width)
    return SparseFormerConfig(
        focusing=focusing,
        cortex=CortexConfig(
            block=BlockConfig(width=width, heads=focusing.heads, feed_forward_width=4 * width, norm_eps=focusing.norm_eps),
            depth=depth - 1,
            prefix_tokens=0,
            pooling="average",
            pool_first=True,
            classes=1000,
        ),
    )


NAMED_CONFIGS: Mapping[str, SparseFormerConfig] = {
    "sf_base_augreg": _named(tokens=48, focusing_width=384, width=768, depth=8, classes=1000),
    "sf_large_augreg": _named(tokens=48, focusing_width=512, width=1024, depth=16, classes=1000),
    "sf_base_clip": _named(tokens=48, focusing_width=384, width=768, depth=8, projection=512),
    "sf_large_clip": _named(tokens=63, focusing_width=512, width=1024, depth=16, projection=768),
    "sf_v1_tiny": _original(tokens=49, focusing_width=256, width=512, depth=8),
    "sf_v1_small": _original(tokens=64, focusing_width=320, width=640, depth=8),
    "sf_v1_base": _original(tokens=81, focusing_width=384, width=768, depth=10),
}
"""The bootstrapped sizes of Gao et al., CVPR 2024 (Table 1 and section 4), then those of Gao et al., ICLR 2024 ("v1")."""

TEACHER_ARCHITECTURES: Mapping[str, str] = {
    "sf_base_augreg": "vit_base_patch16_224",
    "sf_large_augreg": "vit_large_patch16_224",
    "sf_base_clip": "vit_base_patch16_clip_quickgelu_224",
    "sf_large_clip": "vit_large_patch14_clip_quickgelu_224",
}
"""timm's architectures of the named sizes' teachers; time and cost do not depend on their weights. v1 has none."""


def named_config(name: str) -> SparseFormerConfig:
    """The configuration of a named size, such as ``sf_base_augreg``.

    Raises:
        ConfigError: for a name that is none, with the nearest ones.
    """
    if name not in NAMED_CONFIGS:
        known = ", ".join(NAMED_CONFIGS)
        raise ConfigError(f"There is no model of the name '{name}'.", f"{suggest(name, NAMED_CONFIGS)} Known: {known}.".strip())
    return NAMED_CONFIGS[name]
