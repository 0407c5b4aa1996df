"""A student for those who want its embedding and nothing else.

Where the class token is the embedding, nobody reads what the last block of the cortex does for the other tokens: all of them give
keys and values there, but only the class token asks, and only it goes through the rest of the block.
Legend: B batch, T tokens, D width.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.inference.folding import FoldedSparseFormer, fold
from sparseformers.model import SparseFormer
from sparseformers.model.block import Attention, TransformerBlock
from sparseformers.model.cortex import TokenPooling
from sparseformers.model.positions import NOWHERE, Places, rotate
from sparseformers.model.sparseformer import check_images


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
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        self.norm, self.proj = attention.norm, attention.proj

    def forward(self, x: Tensor, places: Places = NOWHERE) -> Tensor:
        """B x T x D -> B x 1 x D."""
        # Three dimensions all the way: OpenVINO 2026.4 crashes at some sizes where the one token is a matrix B x D.
        parts = (self.q(x[:, :1].contiguous()), *self.kv(x).chunk(2, dim=-1))  # B x 1 x D, and two of B x T x D
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        query, key = self.q_norm(query), self.k_norm(key)
        if places.rotation is not None:  # which leaves the first token's query as it is
            key = rotate(key, places.rotation)
        bias = None if places.bias is None else places.bias[..., :1, :].to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(self.norm(attended.transpose(1, 2).flatten(-2)))


class ClassTokenBlock(nn.Module):
    """A pre-norm transformer block for inference that gives the first token only.

    Args:
        block: which gives all tokens; its modules become part of this one.
    """

    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = block.norm1, ClassTokenAttention(block.attn), block.ls1
        self.norm2, self.mlp, self.ls2 = block.norm2, block.mlp, block.ls2

    def forward(self, x: Tensor, places: Places = NOWHERE) -> Tensor:
        """B x T x D -> B x 1 x D, the first row of what the block gave."""
        token = x[:, :1] + self.ls1(self.attn(self.norm1(x), places))
        return token + self.ls2(self.mlp(self.norm2(token)))


def _outputs(linear: nn.Linear, rows: slice) -> nn.Linear:
    """A linear layer that gives some of the channels of another one."""
    weight = linear.weight.detach()[rows].clone()
    part = nn.Linear(weight.shape[1], weight.shape[0], bias=linear.bias is not None, device=weight.device, dtype=weight.dtype)
    part.weight = nn.Parameter(weight, requires_grad=False)
    if linear.bias is not None:
        part.bias = nn.Parameter(linear.bias.detach()[rows].clone(), requires_grad=False)
    return part


class FoldedEmbedding(nn.Module):
    """From images to embeddings, for inference at one number of tokens; it compiles and exports as a student does.

    Args:
        folded: which may be taken apart.
    """

    def __init__(self, folded: FoldedSparseFormer) -> None:
        super().__init__()
        self.config = folded.config
        self.tokens = folded.tokens
        self.normalise, self.focusing, self.cortex = folded.normalise, folded.focusing, folded.cortex
        self.cortex.classifier = None
        blocks = self.cortex.blocks
        if isinstance(self.cortex.pooling, TokenPooling) and len(blocks) and not folded.config.cortex.block.post_norm:
            blocks[-1] = ClassTokenBlock(cast(TransformerBlock, blocks[-1]))

    def forward(self, images: Tensor) -> Tensor:
        """Images as for :meth:`SparseFormer.forward` -> their embeddings, B x D_out, float32."""
        check_images(images)
        front = self.focusing(self.normalise(images), self.tokens)
        return self.cortex(front.tokens, front.final_rois).embedding.float()


def fold_embedding(student: SparseFormer, *, tokens: int | None = None) -> FoldedEmbedding:
    """A student for inference that gives embeddings alone: folded, and without the work that only other outputs need.

    That is the classifier; and where the class token is the embedding, as in CLIP, AugReg and DINOv2, all that the last block of
    the cortex does for the other tokens but their keys and values. Of SF-B's multiply-adds this is 8%.

    Arguments, mode, device and errors are those of :func:`fold`.
    """
    return FoldedEmbedding(fold(student, tokens=tokens)).eval()
