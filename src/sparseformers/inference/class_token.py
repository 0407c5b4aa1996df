"""The last block of a cortex whose class token is the embedding: what it does for the other tokens, nobody reads.

All tokens give keys and values there, but only the class token asks, and only it goes through the rest of the block.
Legend: B batch, T tokens, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.model.block import Attention, TransformerBlock


class ClassTokenAttention(nn.Module):
    """Multi-head attention of the first token to all tokens.

    Args:
        attention: of all tokens to all tokens; its modules become part of this one.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        width = attention.qkv.in_features
        self.heads = attention.heads
        self.q = _outputs(attention.qkv, slice(None, width))
        self.kv = _outputs(attention.qkv, slice(width, None))
        self.q_norm, self.k_norm, self.proj = attention.q_norm, attention.k_norm, attention.proj

    def forward(self, x: Tensor) -> Tensor:
        """B x T x D -> B x 1 x D."""
        # Three dimensions all the way: OpenVINO 2026.4 crashes at some sizes where the one token is a matrix B x D.
        parts = (self.q(x[:, :1].contiguous()), *self.kv(x).chunk(2, dim=-1))  # B x 1 x D, and two of B x T x D
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(self.q_norm(query), self.k_norm(key), value)
        return self.proj(attended.transpose(1, 2).flatten(-2))


class ClassTokenBlock(nn.Module):
    """A transformer block for inference that gives the first token only.

    Args:
        block: which gives all tokens; its modules become part of this one.
    """

    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = block.norm1, ClassTokenAttention(block.attn), block.ls1
        self.norm2, self.mlp, self.ls2 = block.norm2, block.mlp, block.ls2

    def forward(self, x: Tensor) -> Tensor:
        """B x T x D -> B x 1 x D, the first row of what the block gave."""
        token = x[:, :1] + self.ls1(self.attn(self.norm1(x)))
        return token + self.ls2(self.mlp(self.norm2(token)))


def _outputs(linear: nn.Linear, rows: slice) -> nn.Linear:
    """A linear layer that gives some of the channels of another one."""
    weight = linear.weight.detach()[rows].clone()
    part = nn.Linear(weight.shape[1], weight.shape[0], bias=linear.bias is not None, device=weight.device, dtype=weight.dtype)
    part.weight = nn.Parameter(weight, requires_grad=False)
    if linear.bias is not None:
        part.bias = nn.Parameter(linear.bias.detach()[rows].clone(), requires_grad=False)
    return part
