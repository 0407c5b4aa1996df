"""The configurations of the fronts: the papers' two, and the two that begin as the teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from sparseformers.cortex_config import Chance, Count, Number, Points, require_heads
from sparseformers.errors import ConfigError
from sparseformers.rois import grid_of
from sparseformers.settings import Above, AtLeast, Between, Checked


class Front(Checked):
    """The configuration of a front, which has N = ``tokens`` latent tokens."""

    tokens: int

    def check_tokens(self, tokens: int) -> None:
        """Raises ValueError with the reason if a student with this front cannot have so many tokens."""
        if tokens != self.tokens:
            raise ValueError(f"this front has {self.tokens} tokens and no other number, not {tokens}")


@dataclass(frozen=True, kw_only=True)
class FocusingConfig(Front):
    """The focusing transformer of Gao et al., CVPR 2024, for networks that are bootstrapped from a teacher."""

    kind: Literal["focusing"] = "focusing"
    tokens: Count = 48
    """Latent tokens, N, without the class token."""
    width: int = 384
    """Channels of a token in the focusing iterations, F: a multiple of 64 (attention heads have 64 channels)."""
    iterations: Count = 4
    """Focusing iterations; they share their weights."""
    channels: Count = 64
    """Channels of the stem's feature map, C."""
    points: Points = 16
    """Sampling points of each token, P."""
    mixing_hidden: Count = 128
    """Hidden width of the generator of the mixing matrices."""
    position_encoding: Literal["appendix", "released"] = "appendix"
    """RoI position encoding: the paper's appendix A.2, or the layout that the authors' released weights use."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 64 or self.width % 64:
            nearest = max(64, math.ceil(self.width / 64) * 64)
            raise ConfigError(f"The focusing width must be a multiple of 64, not {self.width}.", f"Use {nearest}, for example.")


@dataclass(frozen=True, kw_only=True)
class OriginalFocusingConfig(Front):
    """The focusing transformer of the original SparseFormer (v1): Gao et al., ICLR 2024, trained without a teacher."""

    kind: Literal["original"] = "original"
    tokens: Count = 49
    """Latent tokens, N; each has an embedding of its own."""
    width: Count = 256
    """Channels of a token in the focusing iterations, F."""
    iterations: Count = 4
    """Focusing iterations; they share their weights."""
    channels: Count = 96
    """Channels of the stem's feature map, C."""
    points: Points = 36
    """Sampling points of each token, P."""
    mixing_reduction: Count = 4
    """The generator of the mixing matrices has a hidden width of the token's width divided by this."""
    heads: Count = 64
    """Attention heads, at the focusing width and at the cortex's; must divide both."""
    norm_eps: float = 1e-6
    """Epsilon of its LayerNorms, but for that of the mixing generator, which is 1e-5."""
    stochastic_depth: Chance = 0.0
    """Chance, in training, that an attention or feed-forward branch is left out for an image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads("A focusing width", self.width, self.heads)
        if self.mixing_reduction > self.width:
            problem = f"The mixing generator cannot divide a width of {self.width} by {self.mixing_reduction}."
            raise ConfigError(problem, "Use 4, as the paper does.")


@dataclass(frozen=True, kw_only=True)
class PatchReading(Checked):
    """How the teacher makes tokens of patches, in the parts that begin as it does."""

    patch_size: Count = 16
    """Side in pixels of the patches that the teacher's embedding takes, P."""
    patch_bias: bool = True
    """Whether the teacher's patch embedding has a bias."""
    patch_norm: bool = False
    """Whether the teacher norms patches before it adds their positions (AIMv2)."""
    pre_norm: bool = False
    """Whether the teacher norms its tokens before the first block (CLIP)."""


@dataclass(frozen=True, kw_only=True)
class GridConfig(PatchReading, Front):
    """A front that starts as the teacher at a lower resolution, with its patch and position embedding; beyond the papers."""

    kind: Literal["grid"] = "grid"
    tokens: Count = 49
    """Latent tokens, N: the cells of the fullest grid whose cells are near squares."""
    aspect: Annotated[float, Above(0)] = 1.0
    """Height over width of the images that the grid is for."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the coarse grid; where rows differ in length, columns of the longest."""
        return grid_of(self.tokens, self.aspect)

    def check_tokens(self, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"a grid needs at least one token, not {tokens}")


@dataclass(frozen=True, kw_only=True)
class MixedResolutionConfig(PatchReading, Front):
    """A front that splits large cells into smaller ones where a learnt map says so; beyond the papers."""

    kind: Literal["mixed"] = "mixed"
    tokens: Count = 64
    """Latent tokens, N: start cells, and three more for each split."""
    start: Annotated[tuple[int, int], AtLeast(1)] = (2, 2)
    """Rows and columns of the cells that splitting starts from."""
    levels: Count = 3
    """How often a cell can be split, L."""
    glance: Number = 1
    """The level of the cells that the map is told from: 0 for the start cells, 1 for their quarters, 2 for theirs."""
    channels: Count = 64
    """Channels of the selector, C."""
    sharpness: Annotated[float, Between(0, 1)] = 0.0
    """Cells are split by their share of the map over their area to this power: 0 is the share alone, 1 its density."""
    perturbation: Annotated[float, Between(0, 1)] = 0.0
    """Share of the images that are split by a perturbed map in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.glance >= self.levels:
            raise ConfigError(f"A glance at level {self.glance} needs more levels than {self.levels}.", "Lower it.")
        try:
            self.splits_for(self.tokens)
        except ValueError as error:
            raise ConfigError(f"Mixed resolution: {error}.", "Choose one of these.") from None

    def check_tokens(self, tokens: int) -> None:
        self.splits_for(tokens)

    def splits_for(self, tokens: int | None) -> int:
        """The number of splits that gives so many tokens, by default the configured ones; raises ValueError if none does."""
        count = self.tokens if tokens is None else tokens
        first, least = math.prod(self.start), math.prod(self.start) + 3
        splits, rest = divmod(count - first, 3)
        if rest or not 1 <= splits <= first * (4**self.levels - 1) // 3:
            most = first * 4**self.levels
            nearest = min(max(first + 3 * round((count - first) / 3), least), most)
            raise ValueError(f"this front has {least}, {least + 3}, ... {most} tokens, not {count}; the nearest is {nearest}")
        return splits


FrontConfig: TypeAlias = FocusingConfig | OriginalFocusingConfig | GridConfig | MixedResolutionConfig
"""The configuration of any front."""
