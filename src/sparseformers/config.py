"""The configuration of a SparseFormer: frozen dataclasses with each bound beside its field.

A configuration says everything that is needed to build the network again; it is saved inside ``model.safetensors``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from sparseformers.cortex_config import Activation, BlockConfig, CortexConfig, Count, RelativeConfig, RotaryConfig, require_heads
from sparseformers.errors import ConfigError
from sparseformers.front_config import (
    FocusingConfig,
    FrontConfig,
    GridConfig,
    MixedResolutionConfig,
    OriginalFocusingConfig,
    PatchReading,
)
from sparseformers.settings import Above, AtLeast, Between, Checked

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "HALF",
    "Activation",
    "BlockConfig",
    "CortexConfig",
    "FocusingConfig",
    "FrontConfig",
    "GridConfig",
    "MixedResolutionConfig",
    "OriginalFocusingConfig",
    "PreprocessingConfig",
    "ReadOutConfig",
    "RelativeConfig",
    "RotaryConfig",
    "SparseFormerConfig",
]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
"""Statistics of images in [0, 1] that teachers normalise by, beside those of ImageNet."""


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig(Checked):
    """The way from an image file to the network's input; the network normalises for itself, so images travel as [0, 1]."""

    size: Annotated[tuple[int, int], AtLeast(1)] = (224, 224)
    """Height and width in pixels that the teacher was made for (a SparseFormer takes any)."""
    crop: Annotated[float, Between(0, 1, "(]", 0.875)] = 0.875
    """Share of the shorter side that the central crop keeps."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    """Filter of the resize (antialiased)."""
    resize: Literal["shorter", "squash"] = "shorter"
    """Resize the shorter side and crop the centre, or squash the whole image to the size (SigLIP)."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from each channel (red, green, blue) of images in [0, 1]."""
    std: Annotated[tuple[float, float, float], Above(0)] = (0.229, 0.224, 0.225)
    """Divides each channel after that."""


@dataclass(frozen=True, kw_only=True)
class ReadOutConfig(PatchReading):
    """What reads a map of the teacher's features out of the tokens; beyond the papers."""

    layer: Annotated[int, Between(-1000, -1, example=-2)] = -1
    """The teacher's layer that the map is of, counted from the end: -1 after the final norm, -2 the output of the last block but
    one, as LLaVA reads it."""
    layers: Count = 1
    """Layers of cross-attention from places to tokens."""
    hidden: Count
    """Hidden channels of their feed-forward networks."""
    grid: Annotated[tuple[int, int], AtLeast(1)]
    """Rows and columns of the teacher's own positions."""


@dataclass(frozen=True, kw_only=True)
class SparseFormerConfig:
    """A whole SparseFormer."""

    focusing: FrontConfig
    """The part in front, its ``kind`` says which."""
    cortex: CortexConfig
    """The part that is inherited (in v1: the blocks after the one that samples)."""
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    """The teacher's own."""
    read_out: ReadOutConfig | None = None
    """What gives a map of features; None for students that spread their tokens over the image for it."""

    def __post_init__(self) -> None:
        width = self.cortex.block.width
        if self.cortex.prefix_from_front != isinstance(self.focusing, GridConfig | MixedResolutionConfig):
            problem = "The prefix tokens are the front's where it starts as the teacher, and the cortex's in the papers' fronts."
            raise ConfigError(problem, "Set prefix_from_front accordingly.")
        if self.read_out is not None and -self.read_out.layer > self.cortex.depth:
            problem = f"The student has {self.cortex.depth} blocks, and no layer {self.read_out.layer} for --dense-layer."
            raise ConfigError(problem, f"Use a layer from {-self.cortex.depth} to -1.")
        if isinstance(self.focusing, OriginalFocusingConfig):
            require_heads("A cortex width", width, self.focusing.heads)
        elif width % 8:
            problem = f"The cortex width must be a multiple of 8 for the position encoding, not {width}."
            raise ConfigError(problem, "Choose another teacher.")
