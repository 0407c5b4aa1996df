"""The transformer block, in all the forms that an inherited one can have.

Parameter names are timm's, the names that most teachers already carry. Legend: B batch, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparseformers.config import BlockConfig
from sparseformers.model.layers import LayerScale, build_norm, stochastic_depth
from sparseformers.model.positions import NOWHERE, Places, rotate


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), the GELU of OpenAI's CLIP."""
    return x * torch.sigmoid(1.702 * x)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation (SigLIP)."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
}


def attention_weights(query: Tensor, key: Tensor, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention before the values, with a bias ... x Q x T on its logits.

    Queries ... x Q x C, keys ... x T x C -> ... x Q x T, float32; rows sum to one.
    """
    logits = (query @ key.mT / key.shape[-1] ** 0.5).float()
    return (logits if bias is None else logits + bias).softmax(dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention through PyTorch's fused kernel."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        head_width = config.width // config.heads
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.qkv_bias)
        self.q_norm = build_norm(config, head_width) if config.query_key_norm else nn.Identity()
        self.k_norm = build_norm(config, head_width) if config.query_key_norm else nn.Identity()
        self.norm = build_norm(config) if config.attention_norm else nn.Identity()
        self.proj = nn.Linear(config.width, config.width, bias=config.attention_bias)

    def forward(self, x: Tensor, places: Places = NOWHERE) -> Tensor:
        """B x T x D -> B x T x D."""
        query, key, value = self.query_key_value(x, places)
        bias = None if places.bias is None else places.bias.to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.join(attended)

    def query_key_value(self, x: Tensor, places: Places = NOWHERE) -> tuple[Tensor, Tensor, Tensor]:
        """B x T x D -> three of B x heads x T x D/heads; queries and keys normalised and turned where the block does that."""
        # Parted before heads are: exported files then move only what they have to (docs/lab/inference-tried.md).
        parts = self.qkv(x).chunk(3, dim=-1)  # B x T x D each
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        query, key = self.q_norm(query), self.k_norm(key)
        if places.rotation is not None:
            query, key = rotate(query, places.rotation), rotate(key, places.rotation)
        return query, key, value

    def join(self, attended: Tensor) -> Tensor:
        """What the heads give, B x heads x T x D/heads -> B x T x D."""
        return self.proj(self.norm(attended.transpose(1, 2).flatten(-2)))

    def weights(self, x: Tensor, places: Places = NOWHERE, queries: int | None = None) -> Tensor:
        """Attention weights of :meth:`forward`, whose kernel keeps it to itself: B x T x D -> B x heads x T x T, float32.

        The row of a token that attends sums to one over those attended to; ``queries`` asks for the first rows only.
        """
        query, key, _ = self.query_key_value(x, places)
        bias = None if places.bias is None else places.bias[..., :queries, :]
        return attention_weights(query[..., :queries, :], key, bias)


class FeedForward(nn.Module):
    """Linear, activation (or a gate), Linear."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        hidden = config.feed_forward_width
        self.gated = config.gated
        self.activation = ACTIVATIONS[config.activation]
        self.fc1 = nn.Linear(config.width, 2 * hidden if config.gated else hidden, bias=config.feed_forward_bias)
        self.norm = build_norm(config, hidden) if config.feed_forward_norm else nn.Identity()
        self.fc2 = nn.Linear(hidden, config.width, bias=config.feed_forward_bias)

    def forward(self, x: Tensor) -> Tensor:
        """... x D -> ... x D."""
        hidden = self.fc1(x)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            return self.fc2(self.norm(self.activation(gate) * value))
        return self.fc2(self.norm(self.activation(hidden)))


class TransformerBlock(nn.Module):
    """x += attention(norm(x)); x += feed_forward(norm(x)), each branch scaled where the teacher's is.

    ``left_out`` is the chance, in training, that a branch is left out for an image.
    """

    recompute = False
    """Whether the backward pass computes what is inside once more instead of keeping it in memory (gradient checkpointing;
    Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016)."""

    def __init__(self, config: BlockConfig, *, left_out: float = 0.0) -> None:
        super().__init__()
        self.norm1 = build_norm(config)
        self.attn = Attention(config)
        self.ls1 = LayerScale(config.width) if config.layer_scale else nn.Identity()
        self.norm2 = build_norm(config)
        self.mlp = FeedForward(config)
        self.ls2 = LayerScale(config.width) if config.layer_scale else nn.Identity()
        self.drop = stochastic_depth(left_out)

    def forward(self, x: Tensor, places: Places = NOWHERE) -> Tensor:
        """Tokens B x T x D, and what the block is told of their RoIs -> B x T x D."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.both_halves, x, places, use_reentrant=False)
        return self.both_halves(x, places)

    def both_halves(self, x: Tensor, places: Places = NOWHERE) -> Tensor:
        """B x T x D -> B x T x D: tokens exchange, then each for itself."""
        return self.feed_forward(self.attend(x, places))

    def attend(self, x: Tensor, places: Places = NOWHERE) -> Tensor:
        """The first half, B x T x D -> B x T x D: tokens exchange."""
        x = places.told(x)
        return x + self.drop(self.ls1(self.attn(self.norm1(x), places)))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half, B x T x D -> B x T x D: each token for itself."""
        return x + self.drop(self.ls2(self.mlp(self.norm2(x))))

    def attention(self, x: Tensor, places: Places = NOWHERE, queries: int | None = None) -> Tensor:
        """The attention weights of :meth:`attend`; see :meth:`Attention.weights`."""
        return self.attn.weights(self.norm1(places.told(x)), places, queries)


class PostNormBlock(TransformerBlock):
    """x += norm(attention(x)); x += norm(feed_forward(x)) (Liu et al., "Swin Transformer V2", CVPR 2022)."""

    def attend(self, x: Tensor, places: Places = NOWHERE) -> Tensor:
        x = places.told(x)
        return x + self.drop(self.ls1(self.norm1(self.attn(x, places))))

    def feed_forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.ls2(self.norm2(self.mlp(x))))

    def attention(self, x: Tensor, places: Places = NOWHERE, queries: int | None = None) -> Tensor:
        return self.attn.weights(places.told(x), places, queries)


def build_block(config: BlockConfig, *, left_out: float = 0.0) -> TransformerBlock:
    """The block that the configuration means; see :class:`TransformerBlock`."""
    return (PostNormBlock if config.post_norm else TransformerBlock)(config, left_out=left_out)


def recompute_blocks(network: nn.Module) -> None:
    """Switches gradient checkpointing on for all blocks in a network: weights, their names and outputs stay the same."""
    for module in network.modules():
        if isinstance(module, TransformerBlock):
            module.recompute = True
