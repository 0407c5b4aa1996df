"""The configuration of a SparseFormer: frozen dataclasses with each bound beside its field.

A configuration says everything that is needed to build the network again; it is saved inside ``model.safetensors``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from sparseformers.errors import ConfigError
from sparseformers.rois import grid_of
from sparseformers.settings import Above, AtLeast, Between, check_bounds

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
"""Statistics of images in [0, 1] that teachers normalise by, beside those of ImageNet."""

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]
Count = Annotated[int, AtLeast(1)]
Number = Annotated[int, AtLeast(0)]
Points = Annotated[int, AtLeast(2)]
"""The spread of a token's sampling points is standardised, so one is not enough."""
Chance = Annotated[float, Between(0, 1, "[)", 0.1)]


class _Checked:
    """A part of the configuration, which refuses values out of their bounds."""

    def __post_init__(self) -> None:
        part = type(self).__name__.removesuffix("Config")
        check_bounds(self, named=lambda name: f"{part}: {name.replace('_', ' ')}")


def _require_heads(what: str, width: int, heads: int) -> None:
    if width % heads:
        problem = f"{what} of {width} cannot be split over {heads} attention heads."
        raise ConfigError(problem, "Choose a number of heads that divides the width.")


@dataclass(frozen=True, kw_only=True)
class BlockConfig(_Checked):
    """One transformer block, in all the forms that plain vision transformers come in."""

    width: Count
    """Channels of a token, D."""
    heads: Count
    """Attention heads; must divide the width."""
    feed_forward_width: Count
    """Hidden channels of the feed-forward network (for a gated one: of each of its two halves)."""
    activation: Activation = "gelu"
    """Activation of the feed-forward network; OpenAI's CLIP uses quick_gelu."""
    gated: bool = False
    """A gated feed-forward network: activation(a) * b with a and b from one projection (DINOv2's giant: SwiGLU)."""
    qkv_bias: bool = True
    """Whether the query, key and value projections have biases; where only some of them have, the others' are zero."""
    attention_bias: bool = True
    """Whether the attention's output projection has a bias."""
    feed_forward_bias: bool = True
    query_key_norm: bool = False
    """Normalise queries and keys of each head before their product."""
    attention_norm: bool = False
    """Normalise what the heads give before the output projection (EVA-02's CLIPs)."""
    feed_forward_norm: bool = False
    """Normalise the hidden channels of the feed-forward network (EVA-02: sub-LN)."""
    layer_scale: bool = False
    """A learnt factor per channel on each residual branch (DINOv2)."""
    post_norm: bool = False
    """Normalise what a branch gives and not what it takes (EVA-02's largest; Swin Transformer V2)."""
    norm: Literal["layer", "rms"] = "layer"
    """LayerNorm, or RMSNorm (AIMv2), here and everywhere in the network."""
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_heads("A width", self.width, self.heads)


@dataclass(frozen=True, kw_only=True)
class RotaryConfig(_Checked):
    """Queries and keys that are turned by angles which grow with their token's place (Su et al., RoFormer, 2021)."""

    kind: Literal["rotary"] = "rotary"
    coordinates: Literal["cells", "image"] = "cells"
    """Places are counted in cells of the grid from its first one, or go from -1 to 1 over the image (DINOv3)."""
    reference: Annotated[tuple[int, int] | None, AtLeast(1)] = None
    """Rows and columns that any grid is scaled to (EVA-02); None for cells as they are."""
    offset: float = 0.0
    """Added to places in cells, before they are scaled."""
    aspect: Annotated[float, Above(0)] = 1.0
    """Height over width of the grid."""
    blocks: Count = 1
    """Blocks that have frequencies of their own: all, or 1 where they are shared."""
    heads: Count = 1
    """Heads that have frequencies of their own: all, or 1 where they are shared."""


@dataclass(frozen=True, kw_only=True)
class RelativeConfig(_Checked):
    """A bias on attention between two tokens that their difference in place gives (BEiT)."""

    kind: Literal["relative"] = "relative"
    grid: Annotated[tuple[int, int], AtLeast(1)]
    """Rows and columns of the grid that the table of differences is for."""
    blocks: Count = 1
    """Blocks that have a table of their own: all, or 1 where it is shared."""


class _Front(_Checked):
    """The configuration of a front, which has N = ``tokens`` latent tokens."""

    tokens: int

    def check_tokens(self, tokens: int) -> None:
        """Raises ValueError with the reason if a student with this front cannot have so many tokens."""
        if tokens != self.tokens:
            raise ValueError(f"this front has {self.tokens} tokens and no other number, not {tokens}")


@dataclass(frozen=True, kw_only=True)
class FocusingConfig(_Front):
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
class OriginalFocusingConfig(_Front):
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
        _require_heads("A focusing width", self.width, self.heads)
        if self.mixing_reduction > self.width:
            problem = f"The mixing generator cannot divide a width of {self.width} by {self.mixing_reduction}."
            raise ConfigError(problem, "Use 4, as the paper does.")


@dataclass(frozen=True, kw_only=True)
class GridConfig(_Front):
    """A front that starts as the teacher at a lower resolution, with its patch and position embedding; beyond the papers."""

    kind: Literal["grid"] = "grid"
    tokens: Count = 49
    """Latent tokens, N: the cells of the fullest grid whose cells are near squares."""
    aspect: Annotated[float, Above(0)] = 1.0
    """Height over width of the images that the grid is for."""
    patch_size: Count = 16
    """Side in pixels of the patches that the teacher's embedding takes, P."""
    patch_bias: bool = True
    patch_norm: bool = False
    """Whether the teacher norms patches before it adds their positions (AIMv2)."""
    pre_norm: bool = False
    """Whether the teacher norms its tokens before the first block (CLIP)."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the coarse grid; where rows differ in length, columns of the longest."""
        return grid_of(self.tokens, self.aspect)

    def check_tokens(self, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"a grid needs at least one token, not {tokens}")


@dataclass(frozen=True, kw_only=True)
class MixedResolutionConfig(_Front):
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
    patch_size: Count = 16
    """Side in pixels of the patches that the teacher's embedding takes, P."""
    patch_bias: bool = True
    patch_norm: bool = False
    """Whether the teacher norms patches before it adds their positions (AIMv2)."""
    pre_norm: bool = False
    """Whether the teacher norms its tokens before the first block (CLIP)."""

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


@dataclass(frozen=True, kw_only=True)
class CortexConfig(_Checked):
    """The cortex transformer and what turns its tokens into an embedding: the part that comes from the teacher."""

    block: BlockConfig
    depth: Number
    positions: RotaryConfig | RelativeConfig | None = None
    """What its attention is told of places; None where positions are in the tokens alone."""
    prefix_tokens: Number = 1
    """Learnt tokens put before the latent ones: the class token, then registers; 0 for teachers without any."""
    prefix_from_front: bool = False
    """Whether the prefix tokens come from the front with the latent ones, and are not the cortex's own."""
    final_norm: bool = True
    """A norm over all tokens after the last block."""
    pooling: Literal["token", "average", "attention"] = "token"
    """The embedding is the class token, the mean of the latent tokens, or an attention-pooled token."""
    pool_prefix_tokens: bool = False
    """Whether average and attention pooling take in the prefix tokens too."""
    pooled_norm: bool = False
    """A norm after pooling (timm's ``fc_norm``)."""
    pool_first: bool = False
    """Pool the tokens before the final norm, which then norms the pooled one and, for what is given out, each token (v1)."""
    attention_pool_heads: Count = 1
    """Heads of the attention pooling, where there is one."""
    attention_pool_width: Annotated[int | None, AtLeast(0)] = None
    """Hidden channels of its feed-forward network, if other than the blocks'; 0 for none."""
    distilled: bool = False
    """The embedding is the mean of the first two tokens, and each of them has a classifier (DeiT)."""
    projection: Annotated[int | None, AtLeast(1)] = None
    """Channels of a linear projection of the pooled token (CLIP); none for teachers that have none."""
    projection_bias: bool = False
    classes: Annotated[int | None, AtLeast(1)] = None
    """Outputs of an inherited classifier on top of the embedding; none without one."""
    stochastic_depth: Chance = 0.0
    """Chance, in training, that a branch of the last block is left out for an image; it grows evenly from 0 before the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling == "token" and not self.prefix_tokens:
            problem = "Pooling by 'token' needs a class token, but there are no prefix tokens."
            raise ConfigError(problem, "Set prefix_tokens to 1, or pool by 'average'.")
        _require_heads("For attention pooling a width", self.block.width, self.attention_pool_heads)
        if self.distilled and (self.pooling != "token" or self.prefix_tokens < 2):
            problem = "A distilled cortex needs a class token and a distillation token, and pools by 'token'."
            raise ConfigError(problem, "Set prefix_tokens to 2.")
        blocks = 1 if self.positions is None else self.positions.blocks
        if blocks not in (1, self.depth):
            problem = f"Positions are for all {self.depth} blocks or shared, not for {blocks}."
            raise ConfigError(problem, "Set their blocks to 1.")
        if self.pool_first and (self.pooled_norm or not self.final_norm):
            problem = "Pooling first needs a final norm, and leaves no place for another one after pooling."
            raise ConfigError(problem, "Set final_norm, and leave pooled_norm off.")

    @property
    def embedding_width(self) -> int:
        """Channels of the final image embedding, D_out."""
        return self.block.width if self.projection is None else self.projection


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig(_Checked):
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
class ReadOutConfig(_Checked):
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
    patch_size: Count = 16
    """Side in pixels of the patches that the teacher's embedding takes, P."""
    patch_bias: bool = True
    """Whether the teacher's patch embedding has a bias."""
    patch_norm: bool = False
    """Whether the teacher norms patches before it adds their positions (AIMv2)."""
    pre_norm: bool = False
    """Whether the teacher norms its tokens before the first block (CLIP)."""


FrontConfig: TypeAlias = FocusingConfig | OriginalFocusingConfig | GridConfig | MixedResolutionConfig
"""The configuration of any front."""


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
            _require_heads("A cortex width", width, self.focusing.heads)
        elif width % 8:
            problem = f"The cortex width must be a multiple of 8 for the position encoding, not {width}."
            raise ConfigError(problem, "Choose another teacher.")
