"""What a SparseFormer is made of, as frozen dataclasses, and the named sizes of the paper.

A configuration says everything that is needed to build the network again; it is saved inside ``model.safetensors``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from sparseformers.errors import ConfigError
from sparseformers.rois import grid_of

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
"""Statistics of images in [0, 1] that teachers normalise by, beside those of ImageNet."""

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]


def _require(condition: bool, problem: str, remedy: str) -> None:
    if not condition:
        raise ConfigError(problem, remedy)


def _require_chance(stochastic_depth: float) -> None:
    _require(
        0 <= stochastic_depth < 1,
        f"Stochastic depth leaves out a branch with a chance in [0, 1), not {stochastic_depth}.",
        "Use 0 for none, or 0.1, for example.",
    )


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """One pre-norm transformer block, in all the forms that plain vision transformers come in."""

    width: int
    """Channels of a token, D."""
    heads: int
    """Attention heads; must divide the width."""
    feed_forward_width: int
    """Hidden channels of the feed-forward network (for a gated one: of each of its two halves)."""
    activation: Activation = "gelu"
    """Activation of the feed-forward network; OpenAI's CLIP uses quick_gelu."""
    gated: bool = False
    """A gated feed-forward network: activation(a) * b with a and b from one projection (DINOv2's giant: SwiGLU)."""
    qkv_bias: bool = True
    """Whether the query, key and value projections have biases."""
    attention_bias: bool = True
    """Whether the attention's output projection has a bias."""
    feed_forward_bias: bool = True
    """Whether the feed-forward network's projections have biases."""
    query_key_norm: bool = False
    """Normalise queries and keys of each head before their product."""
    layer_scale: bool = False
    """A learnt factor per channel on each residual branch (DINOv2)."""
    norm_eps: float = 1e-6
    """Epsilon of the block's LayerNorms."""

    def __post_init__(self) -> None:
        _require(self.width >= 1 and self.heads >= 1, "A block's width and heads must be at least 1.", "Raise them.")
        _require(
            self.width % self.heads == 0,
            f"A width of {self.width} cannot be split over {self.heads} attention heads.",
            "Choose a number of heads that divides the width.",
        )
        _require(self.feed_forward_width >= 1, "The feed-forward width must be at least 1.", "Raise it.")


@dataclass(frozen=True, kw_only=True)
class FocusingConfig:
    """The focusing transformer: it turns an image into N tokens, each with a region of interest (RoI).

    The one of Gao et al., CVPR 2024: for networks that are bootstrapped from a teacher.
    """

    kind: Literal["focusing"] = "focusing"
    """Tells it from the other fronts in a saved configuration."""
    tokens: int = 48
    """Latent tokens, N, without the class token."""
    width: int = 384
    """Channels of a token in the focusing iterations, F: a multiple of 64 (attention heads have 64 channels)."""
    iterations: int = 4
    """Focusing iterations; they share their weights."""
    channels: int = 64
    """Channels of the stem's feature map, C."""
    points: int = 16
    """Sampling points of each token, P."""
    mixing_hidden: int = 128
    """Hidden width of the generator of the mixing matrices."""
    position_encoding: Literal["appendix", "released"] = "appendix"
    """RoI position encoding: the paper's appendix A.2, or the layout that the authors' released weights use."""

    def __post_init__(self) -> None:
        _require(
            self.tokens >= 1,
            f"A SparseFormer needs at least one latent token, not {self.tokens}.",
            "Ask for one token or more, for example --tokens 48.",
        )
        _require(
            self.width >= 64 and self.width % 64 == 0,
            f"The focusing width must be a multiple of 64, not {self.width}.",
            f"Use {max(64, math.ceil(self.width / 64) * 64)}, for example.",
        )
        _require(self.iterations >= 1, "The focusing transformer needs at least one iteration.", "Use 4, as the paper does.")
        _require(self.channels >= 1, "The stem needs at least one channel.", "Use 64, as the paper does.")
        _require(self.mixing_hidden >= 1, "The mixing generator needs a hidden width.", "Use 128, as the paper does.")
        _require(
            self.points >= 2,
            f"A token needs at least 2 sampling points (their spread is standardised), not {self.points}.",
            "Use 16, as the paper does.",
        )


@dataclass(frozen=True, kw_only=True)
class OriginalFocusingConfig:
    """The focusing transformer of the original SparseFormer (v1): Gao et al., ICLR 2024, trained without a teacher."""

    kind: Literal["original"] = "original"
    """Tells it from the other fronts in a saved configuration."""
    tokens: int = 49
    """Latent tokens, N; each has an embedding of its own."""
    width: int = 256
    """Channels of a token in the focusing iterations, F."""
    iterations: int = 4
    """Focusing iterations; they share their weights."""
    channels: int = 96
    """Channels of the stem's feature map, C."""
    points: int = 36
    """Sampling points of each token, P."""
    mixing_reduction: int = 4
    """The generator of the mixing matrices has a hidden width of the token's width divided by this."""
    heads: int = 64
    """Attention heads, at the focusing width and at the cortex's; must divide both."""
    norm_eps: float = 1e-6
    """Epsilon of its LayerNorms, but for that of the mixing generator, which is 1e-5."""
    stochastic_depth: float = 0.0
    """Chance, in training, that an attention or feed-forward branch is left out for an image."""

    def __post_init__(self) -> None:
        _require(
            self.tokens >= 1,
            f"A SparseFormer needs at least one latent token, not {self.tokens}.",
            "Ask for one token or more, for example 49.",
        )
        _require(
            self.heads >= 1 and self.width >= 1 and self.width % self.heads == 0,
            f"A focusing width of {self.width} cannot be split over {self.heads} attention heads.",
            "Choose a multiple of the heads; v1 has 64 heads whatever the width.",
        )
        _require(self.iterations >= 1, "The focusing transformer needs at least one iteration.", "Use 4, as the paper does.")
        _require(self.channels >= 1, "The stem needs at least one channel.", "Use 96, as the paper does.")
        _require(
            1 <= self.mixing_reduction <= self.width,
            f"The mixing generator cannot divide a width of {self.width} by {self.mixing_reduction}.",
            "Use 4, as the paper does.",
        )
        _require(
            self.points >= 2,
            f"A token needs at least 2 sampling points (their spread is standardised), not {self.points}.",
            "Use 36, as the paper does.",
        )
        _require_chance(self.stochastic_depth)


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """A front that starts as the teacher at a lower resolution; beyond the papers.

    It holds the teacher's patch embedding, positions and prefix tokens.
    """

    kind: Literal["grid"] = "grid"
    """Tells it from the other fronts in a saved configuration."""
    tokens: int = 49
    """Latent tokens, N: the cells of a grid (a square one, or the fullest near a square)."""
    patch_size: int = 16
    """Side in pixels of the patches that the teacher's embedding takes, P."""
    patch_bias: bool = True
    """Whether the teacher's patch embedding has a bias."""
    pre_norm: bool = False
    """Whether the teacher norms its tokens before the first block (CLIP)."""

    def __post_init__(self) -> None:
        _require(
            self.tokens >= 1,
            f"A SparseFormer needs at least one latent token, not {self.tokens}.",
            "Ask for one token or more, for example --tokens 48.",
        )
        _require(self.patch_size >= 1, f"A patch cannot have a side of {self.patch_size} pixels.", "Use the teacher's.")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the coarse grid; where rows differ in length, columns of the longest."""
        return grid_of(self.tokens)


@dataclass(frozen=True, kw_only=True)
class CortexConfig:
    """The cortex transformer and what turns its tokens into an embedding: the part that comes from the teacher."""

    block: BlockConfig
    """The form of its blocks."""
    depth: int
    """Number of blocks."""
    prefix_tokens: int = 1
    """Learnt tokens put before the latent ones: the class token, then registers; 0 for teachers without any."""
    prefix_from_front: bool = False
    """Whether the prefix tokens come from the front with the latent ones, and are not the cortex's own."""
    final_norm: bool = True
    """A LayerNorm over all tokens after the last block."""
    pooling: Literal["token", "average", "attention"] = "token"
    """What becomes the embedding: the class token, the mean of the latent tokens, or an attention-pooled token."""
    pool_prefix_tokens: bool = False
    """Whether average and attention pooling take in the prefix tokens too."""
    pooled_norm: bool = False
    """A LayerNorm after pooling (timm's ``fc_norm``)."""
    pool_first: bool = False
    """Pool the tokens before the final norm, which then norms the pooled one and, for what is given out, each token (v1)."""
    attention_pool_heads: int = 1
    """Heads of the attention pooling, where there is one."""
    projection: int | None = None
    """Channels of a linear projection of the pooled token (CLIP); none for teachers that have none."""
    projection_bias: bool = False
    """Whether that projection has a bias."""
    classes: int | None = None
    """Outputs of an inherited classifier on top of the embedding; none without one."""
    stochastic_depth: float = 0.0
    """Chance, in training, that a branch of the last block is left out for an image; it grows evenly from 0 before the first."""

    def __post_init__(self) -> None:
        _require(self.depth >= 0, f"A cortex cannot have {self.depth} blocks.", "Keep at least one block of the teacher.")
        _require(self.prefix_tokens >= 0, "The number of prefix tokens cannot be negative.", "Use 1 for a class token.")
        _require(
            self.pooling != "token" or self.prefix_tokens >= 1,
            "Pooling by 'token' needs a class token, but there are no prefix tokens.",
            "Set prefix_tokens to 1, or pool by 'average'.",
        )
        _require(
            self.attention_pool_heads >= 1 and self.block.width % self.attention_pool_heads == 0,
            f"A width of {self.block.width} cannot be split over {self.attention_pool_heads} heads of attention pooling.",
            "Choose a number of heads that divides the width.",
        )
        _require(
            self.projection is None or self.projection >= 1, "A projection needs at least one channel.", "Use None for none."
        )
        _require(self.classes is None or self.classes >= 1, "A classifier needs at least one class.", "Use None for none.")
        _require(
            not self.pool_first or (self.final_norm and not self.pooled_norm),
            "Pooling first needs a final norm, and leaves no place for another one after pooling.",
            "Set final_norm, and leave pooled_norm off.",
        )
        _require_chance(self.stochastic_depth)

    @property
    def embedding_width(self) -> int:
        """Channels of the final image embedding, D_out."""
        return self.block.width if self.projection is None else self.projection


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig:
    """How an image file becomes the network's input; the network normalises for itself, so images travel as [0, 1]."""

    size: tuple[int, int] = (224, 224)
    """Height and width in pixels that the teacher was made for (a SparseFormer takes any)."""
    crop: float = 0.875
    """Share of the shorter side that the central crop keeps."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    """Filter of the resize (antialiased)."""
    resize: Literal["shorter", "squash"] = "shorter"
    """Resize the shorter side and crop the centre, or squash the whole image to the size (SigLIP)."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from each channel (red, green, blue) of images in [0, 1]."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divides each channel after that."""

    def __post_init__(self) -> None:
        _require(min(self.size) >= 1, f"An image size of {self.size} is not possible.", "Use 224, for example.")
        _require(0 < self.crop <= 1, f"The crop must be a share in (0, 1], not {self.crop}.", "Use 0.875, for example.")
        _require(min(self.std) > 0, f"Images cannot be divided by a std of {self.std}.", "Use 1 for a channel to leave as it is.")


@dataclass(frozen=True, kw_only=True)
class SparseFormerConfig:
    """A whole SparseFormer."""

    focusing: FocusingConfig | OriginalFocusingConfig | GridConfig
    """The part in front, new in every SparseFormer; its ``kind`` says which (files from before there were two have none)."""
    cortex: CortexConfig
    """The part that is inherited (in v1: the blocks after the one that samples)."""
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    """What the network expects of its images: the teacher's own."""

    def __post_init__(self) -> None:
        width = self.cortex.block.width
        _require(
            self.cortex.prefix_from_front == isinstance(self.focusing, GridConfig),
            "The prefix tokens are the front's where it is inherited, and the cortex's where it is not.",
            "Set prefix_from_front accordingly.",
        )
        if isinstance(self.focusing, OriginalFocusingConfig):
            _require(
                width % self.focusing.heads == 0,
                f"A cortex width of {width} cannot be split over {self.focusing.heads} attention heads.",
                "Choose a multiple of the heads.",
            )
        else:
            _require(
                width % 8 == 0,
                f"The cortex width must be a multiple of 8 for the position encoding, not {width}.",
                "Choose another teacher.",
            )
