"""The cortex transformer: the teacher's later blocks, its final norm, pooling and head, fed with N latent tokens."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.config import BlockConfig, CortexConfig, MixedResolutionConfig
from sparseformers.model.block import FeedForward, attention_weights, build_block
from sparseformers.model.layers import build_norm
from sparseformers.model.positions import NOWHERE, Places, SizeTokens, build_positions


class PrefixTokens(nn.Module):
    """Learnt tokens that are put before the latent ones: a class token, then registers where the teacher has them."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.zeros(count, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """B x N x D -> B x (R+N) x D with R prefix tokens."""
        return torch.cat([self.tokens.expand(tokens.shape[0], -1, -1).to(tokens.dtype), tokens], dim=1)


class TokenPooling(nn.Module):
    """The class token is the embedding."""

    def forward(self, tokens: Tensor) -> Tensor:
        """B x T x D -> B x D."""
        return tokens[:, 0]


class DistilledPooling(nn.Module):
    """The mean of class token and distillation token is the embedding (Touvron et al., "DeiT", ICML 2021)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """B x T x D -> B x D."""
        return tokens[:, :2].mean(dim=1)


class AveragePooling(nn.Module):
    """The mean of the tokens is the embedding, the first ``skip`` left out."""

    def __init__(self, skip: int) -> None:
        super().__init__()
        self.skip = skip

    def forward(self, tokens: Tensor) -> Tensor:
        """B x T x D -> B x D."""
        return tokens[:, self.skip :].mean(dim=1)


class AttentionPooling(nn.Module):
    """A learnt query attends to all tokens but the first ``skip``, then mostly a feed-forward residual (SigLIP's "MAP").

    ``hidden`` is the number of channels of the feed-forward network; 0 for none (AIMv2).
    """

    def __init__(self, config: BlockConfig, heads: int, skip: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.skip = heads, skip
        self.latent = nn.Parameter(torch.zeros(1, 1, config.width))
        self.q = nn.Linear(config.width, config.width)
        self.kv = nn.Linear(config.width, 2 * config.width)
        self.proj = nn.Linear(config.width, config.width)
        self.norm = build_norm(config) if hidden else nn.Identity()
        self.mlp = FeedForward(dataclasses.replace(config, feed_forward_width=hidden)) if hidden else None

    def forward(self, tokens: Tensor) -> Tensor:
        """B x T x D -> B x D."""
        query, key, value = self.query_key_value(tokens)
        return self.after_attention(F.scaled_dot_product_attention(query, key, value))

    def after_attention(self, attended: Tensor) -> Tensor:
        """What the query is given, B x heads x 1 x D/heads -> B x D."""
        pooled = self.proj(attended.transpose(1, 2).flatten(-2))
        return (pooled if self.mlp is None else pooled + self.mlp(self.norm(pooled)))[:, 0]

    def query_key_value(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """B x T x D -> the query B x heads x 1 x D/heads, keys and values B x heads x (T-skip) x D/heads."""
        latent = self.latent.expand(tokens.shape[0], -1, -1)
        query = self.q(latent).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.kv(tokens[:, self.skip :]).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def weights(self, tokens: Tensor) -> Tensor:
        """The attention of the query to each token: B x T x D -> B x heads x (T-skip), float32, sums to one over tokens."""
        query, key, _ = self.query_key_value(tokens)
        return attention_weights(query, key).squeeze(-2)


def build_pooling(config: CortexConfig) -> nn.Module:
    """The pooling module that the configuration names."""
    if config.pooling == "token":
        return DistilledPooling() if config.distilled else TokenPooling()
    skip = 0 if config.pool_prefix_tokens else config.prefix_tokens
    if config.pooling == "average":
        return AveragePooling(skip)
    hidden = config.block.feed_forward_width if config.attention_pool_width is None else config.attention_pool_width
    return AttentionPooling(config.block, config.attention_pool_heads, skip, hidden)


class CortexOutput(NamedTuple):
    """The output of the cortex."""

    embedding: Tensor  # B x D_out, in the teacher's space
    logits: Tensor | None  # B x classes where a classifier was inherited
    tokens: Tensor  # B x (R+N) x D after the final norm
    layer: Tensor  # B x (R+N) x D, those of the layer that was asked for; the same by default


class CortexTransformer(nn.Module):
    """Prefix tokens, blocks, final norm, pooling, projection and classifier, as far as the teacher has them.

    ``mixed`` is the front that RoIs of several sizes come from, where they do; blocks are told of these.
    """

    def __init__(self, config: CortexConfig, mixed: MixedResolutionConfig | None = None) -> None:
        super().__init__()
        width = config.block.width
        own_prefix = config.prefix_tokens and not config.prefix_from_front
        self.prefix = PrefixTokens(config.prefix_tokens, width) if own_prefix else nn.Identity()
        told, prefix = config.positions, config.prefix_tokens
        self.positions = None if told is None else build_positions(told, config.block, prefix)
        self.sizes = None if mixed is None else SizeTokens(mixed, config)
        self.blocks = nn.ModuleList(
            build_block(config.block, left_out=config.stochastic_depth * (index + 1) / config.depth)
            for index in range(config.depth)
        )
        self.norm = build_norm(config.block) if config.final_norm else nn.Identity()
        self.pooling = build_pooling(config)
        self.pooled_norm = build_norm(config.block) if config.pooled_norm else nn.Identity()
        self.projection = (
            nn.Identity() if config.projection is None else nn.Linear(width, config.projection, bias=config.projection_bias)
        )
        self.classifier = None if config.classes is None else nn.Linear(config.embedding_width, config.classes)

    def forward(self, tokens: Tensor, rois: Tensor, layer: int = -1) -> CortexOutput:
        """Embeds an image: tokens B x N x D, or B x (R+N) x D from a front that puts the prefix tokens in, and the RoIs of the N
        latent ones, B x N x 4, or 1 x N x 4 where they are the same in all images. The tokens of a ``layer`` come besides: -1 for
        the final ones, -2 for those that leave the last block but one, and so on.
        """
        tokens = self.prefix(tokens)  # B x (R+N) x D
        of_layer = tokens
        for left, block, places in zip(reversed(range(len(self.blocks))), self.blocks, self.places(rois), strict=True):
            tokens = block(tokens, places)
            of_layer = tokens if layer + left == -1 else of_layer
        pooled, tokens = self.read(tokens)  # B x D, B x (R+N) x D
        embedding = self.projection(pooled)  # B x D_out
        return CortexOutput(embedding, self.classify(embedding, tokens), tokens, tokens if layer == -1 else of_layer)

    def places(self, rois: Tensor) -> list[Places]:
        """What each block is told of its tokens' RoIs, which are as for :meth:`forward`."""
        places: list[Places] = [NOWHERE] if self.positions is None else self.positions(rois)
        places = places * len(self.blocks) if len(places) == 1 else places
        return places if self.sizes is None else self.sizes(rois, places)

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens B x T x D after the last block -> the pooled one B x D, and all of them after the final norm."""
        tokens = self.norm(tokens)
        return self.pooled_norm(self.pooling(tokens)), tokens

    def classify(self, embedding: Tensor, tokens: Tensor) -> Tensor | None:
        """Embeddings B x D_out -> logits B x classes; None without a classifier."""
        return None if self.classifier is None else self.classifier(embedding)


class PoolFirstCortexTransformer(CortexTransformer):
    """A cortex that pools before its final norm, as v1 does."""

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.norm(self.pooling(tokens)), self.norm(tokens)


class DistilledCortexTransformer(CortexTransformer):
    """A cortex whose class token and distillation token have a classifier each; what these say is averaged (DeiT)."""

    def __init__(self, config: CortexConfig, mixed: MixedResolutionConfig | None = None) -> None:
        super().__init__(config, mixed)
        self.distilled_classifier = None if config.classes is None else nn.Linear(config.block.width, config.classes)

    def classify(self, embedding: Tensor, tokens: Tensor) -> Tensor | None:
        if self.classifier is None or self.distilled_classifier is None:
            return None
        return (self.classifier(tokens[:, 0]) + self.distilled_classifier(tokens[:, 1])) / 2


def build_cortex(config: CortexConfig, mixed: MixedResolutionConfig | None = None) -> CortexTransformer:
    """The cortex that the configuration means; see :class:`CortexTransformer`."""
    if config.distilled:
        return DistilledCortexTransformer(config, mixed)
    return (PoolFirstCortexTransformer if config.pool_first else CortexTransformer)(config, mixed)
