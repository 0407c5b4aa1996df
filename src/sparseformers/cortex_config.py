"""The configuration of what is inherited: blocks, what they are told of places, and the cortex that they make up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sparseformers.errors import ConfigError
from sparseformers.settings import Above, AtLeast, Between, Checked

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]
Count = Annotated[int, AtLeast(1)]
Number = Annotated[int, AtLeast(0)]
Points = Annotated[int, AtLeast(2)]
"""The spread of a token's sampling points is standardised, so one is not enough."""
Chance = Annotated[float, Between(0, 1, "[)", 0.1)]


def require_heads(what: str, width: int, heads: int) -> None:
    """Raises ConfigError for a width that the attention heads cannot share evenly."""
    if width % heads:
        problem = f"{what} of {width} cannot be split over {heads} attention heads."
        raise ConfigError(problem, "Choose a number of heads that divides the width.")


@dataclass(frozen=True, kw_only=True)
class BlockConfig(Checked):
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
        require_heads("A width", self.width, self.heads)


@dataclass(frozen=True, kw_only=True)
class RotaryConfig(Checked):
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
class RelativeConfig(Checked):
    """A bias on attention between two tokens that their difference in place gives (BEiT)."""

    kind: Literal["relative"] = "relative"
    grid: Annotated[tuple[int, int], AtLeast(1)]
    """Rows and columns of the grid that the table of differences is for."""
    blocks: Count = 1
    """Blocks that have a table of their own: all, or 1 where it is shared."""


@dataclass(frozen=True, kw_only=True)
class CortexConfig(Checked):
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
        require_heads("For attention pooling a width", self.block.width, self.attention_pool_heads)
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
