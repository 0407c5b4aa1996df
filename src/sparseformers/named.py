"""The named sizes of the papers."""

from __future__ import annotations

from collections.abc import Mapping

from sparseformers.config import CLIP_MEAN, CLIP_STD, HALF, PreprocessingConfig, SparseFormerConfig
from sparseformers.cortex_config import Activation, BlockConfig, CortexConfig
from sparseformers.errors import ConfigError, suggest
from sparseformers.front_config import FocusingConfig, OriginalFocusingConfig


def bootstrapped_config(
    focusing: FocusingConfig, block: BlockConfig, *, depth: int, projection: int | None = None, classes: int | None = None
) -> SparseFormerConfig:
    """A bootstrapped network: one of a CLIP has a projection, one of AugReg a classifier."""
    cortex = CortexConfig(block=block, depth=depth, projection=projection, classes=classes)
    clip = PreprocessingConfig(crop=1.0, mean=CLIP_MEAN, std=CLIP_STD)
    images = PreprocessingConfig(crop=0.9, mean=HALF, std=HALF) if projection is None else clip
    return SparseFormerConfig(focusing=focusing, cortex=cortex, preprocessing=images)


def original_config(
    focusing: OriginalFocusingConfig, *, width: int, feed_forward_width: int, depth: int, classes: int = 1000
) -> SparseFormerConfig:
    """A network of v1, with ``depth`` blocks after those of the front."""
    block = BlockConfig(width=width, heads=focusing.heads, feed_forward_width=feed_forward_width, norm_eps=focusing.norm_eps)
    cortex = CortexConfig(block=block, depth=depth, prefix_tokens=0, pooling="average", pool_first=True, classes=classes)
    return SparseFormerConfig(focusing=focusing, cortex=cortex)


def _named(
    *, tokens: int, focusing_width: int, width: int, depth: int, projection: int | None = None, classes: int | None = None
) -> SparseFormerConfig:
    activation: Activation = "gelu" if projection is None else "quick_gelu"
    eps = 1e-6 if projection is None else 1e-5
    block = BlockConfig(width=width, heads=width // 64, feed_forward_width=4 * width, activation=activation, norm_eps=eps)
    focusing = FocusingConfig(tokens=tokens, width=focusing_width)
    return bootstrapped_config(focusing, block, depth=depth, projection=projection, classes=classes)


def _original(*, tokens: int, focusing_width: int, width: int, depth: int) -> SparseFormerConfig:
    """A size of v1; its depth counts the cortex layer that samples, which is part of the front here."""
    focusing = OriginalFocusingConfig(tokens=tokens, width=focusing_width)
    return original_config(focusing, width=width, feed_forward_width=4 * width, depth=depth - 1)


NAMED_CONFIGS: Mapping[str, SparseFormerConfig] = {
    "sf_base_augreg": _named(tokens=48, focusing_width=384, width=768, depth=8, classes=1000),
    "sf_large_augreg": _named(tokens=48, focusing_width=512, width=1024, depth=16, classes=1000),
    "sf_base_clip": _named(tokens=48, focusing_width=384, width=768, depth=8, projection=512),
    "sf_large_clip": _named(tokens=63, focusing_width=512, width=1024, depth=16, projection=768),
    "sf_v1_tiny": _original(tokens=49, focusing_width=256, width=512, depth=8),
    "sf_v1_small": _original(tokens=64, focusing_width=320, width=640, depth=8),
    "sf_v1_base": _original(tokens=81, focusing_width=384, width=768, depth=10),
}  # the bootstrapped sizes of Gao et al., CVPR 2024 (Table 1 and section 4), then those of Gao et al., ICLR 2024 ("v1")

TEACHER_ARCHITECTURES: Mapping[str, str] = {
    "sf_base_augreg": "vit_base_patch16_224",
    "sf_large_augreg": "vit_large_patch16_224",
    "sf_base_clip": "vit_base_patch16_clip_quickgelu_224",
    "sf_large_clip": "vit_large_patch14_clip_quickgelu_224",
}  # timm's architectures of the named sizes' teachers; time and cost do not depend on their weights. v1 has none


def named_config(name: str) -> SparseFormerConfig:
    """The configuration of a named size, such as ``sf_base_augreg``; raises ConfigError for another name, with the nearest."""
    if name not in NAMED_CONFIGS:
        known = ", ".join(NAMED_CONFIGS)
        raise ConfigError(f"There is no model of the name '{name}'.", f"{suggest(name, NAMED_CONFIGS)} Known: {known}.".strip())
    return NAMED_CONFIGS[name]
