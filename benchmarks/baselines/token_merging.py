"""Token merging on the teacher: it starts with all its tokens and merges similar ones in each block, without training.

After Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023. Legend: B batch, T tokens with the prefix, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.baselines.matching import match, merge
from benchmarks.baselines.schedule import check_schedule, constant_schedule
from sparseformers.errors import ConfigError
from sparseformers.evaluation.rebuilt import RebuiltTeacher
from sparseformers.model.block import TransformerBlock
from sparseformers.model.cortex import AttentionPooling, AveragePooling
from sparseformers.teachers import Teacher, TeacherOutput


class TokenMergingTeacher(RebuiltTeacher):
    """The teacher with fewer tokens from block to block: similar ones are merged between attention and feed-forward.

    A merged token is the mean of its members weighted by their sizes (how many patches each stands for), and counts by its
    own size in attention and pooling. Class token and registers never merge.

    Args:
        teacher: which one.
        merged_per_block: tokens to merge away in each block: one number, of which blocks with few tokens left merge no
            more than half of these, or one number for each block.
        proportional: whether a token of size s is attended to like s tokens ("proportional attention", as in the paper);
            with few tokens left, some teachers do better without.

    Raises:
        ConfigError: for another number of blocks than the teacher's, or more tokens than can be merged.
        WeightsError: if the teacher's weights do not fit its anatomy.
    """

    def __init__(self, teacher: Teacher, merged_per_block: int | Sequence[int], *, proportional: bool = True) -> None:
        super().__init__(teacher)
        anatomy = teacher.anatomy
        if anatomy.positions is not None or anatomy.block.post_norm or anatomy.distilled:
            problem = (
                f"The tokens of '{teacher.identity.name}' cannot be merged: its attention needs their places, or is not plain."
            )
            raise ConfigError(problem, "Choose a plain vision transformer, for example 'bundled'.")
        if isinstance(merged_per_block, int):
            merged_per_block = constant_schedule(teacher.patch_tokens, teacher.depth, merged_per_block)
        check_schedule(teacher.patch_tokens, teacher.depth, merged_per_block)
        self.merged = tuple(merged_per_block)
        """Tokens merged away in each block."""
        self.proportional = proportional
        self.kept = teacher.anatomy.prefix_tokens

    def forward(self, images: Tensor) -> TeacherOutput:
        cortex = self.cortex
        tokens = cortex.prefix(self.tokens(images))
        sizes = tokens.new_ones(tokens.shape[:2], dtype=torch.float32)
        bias: Tensor | None = None  # nothing to weigh before the first merging, and PyTorch's kernels are faster without
        for block, count in zip(cast(Iterable[TransformerBlock], cortex.blocks), self.merged, strict=True):
            tokens, keys = attend(block, tokens, bias)
            if count:
                groups = match(keys, count, kept=self.kept)
                tokens, sizes = merge(tokens, sizes, groups, tokens.shape[1] - count)
                bias = sizes.log() if self.proportional else None
            tokens = block.feed_forward(tokens)
        embedding = cortex.projection(cortex.pooled_norm(pool(cortex.pooling, cortex.norm(tokens), sizes, bias)))
        return TeacherOutput(embedding, None if cortex.classifier is None else cortex.classifier(embedding))


def attend(block: TransformerBlock, tokens: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The first half of a block, with a bias on the attention to each token.

    Args:
        block: whose weights to use.
        tokens: B x T x D.
        bias: B x T, added to the logits of the attention to each token, whoever attends; None for none.

    Returns:
        Tokens B x T x D, and the keys that they were attended to by, averaged over heads, B x T x D/heads.
    """
    attention = block.attn
    query, key, value = attention.query_key_value(block.norm1(tokens))  # B x heads x T x D/heads each
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=_mask(bias, query))
    return tokens + block.drop(block.ls1(attention.join(attended))), key.mean(dim=1)


def pool(pooling: nn.Module, tokens: Tensor, sizes: Tensor, bias: Tensor | None) -> Tensor:
    """What a cortex's pooling makes of tokens that stand for several patches each.

    Args:
        pooling: whose weights to use.
        tokens: B x T x D after the final norm.
        sizes: B x T, the weights of an average.
        bias: B x T, added to the logits of attention pooling; None for none.

    Returns:
        B x D.
    """
    if isinstance(pooling, AveragePooling):
        weights = sizes[:, pooling.skip :, None]
        return ((tokens[:, pooling.skip :] * weights).sum(dim=1) / weights.sum(dim=1)).to(tokens.dtype)
    if not isinstance(pooling, AttentionPooling):
        return pooling(tokens)
    query, key, value = pooling.query_key_value(tokens)
    mask = _mask(None if bias is None else bias[:, pooling.skip :], query)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return pooling.after_attention(attended)


def _mask(bias: Tensor | None, query: Tensor) -> Tensor | None:
    """A bias B x T as attention takes it, B x 1 x 1 x T."""
    return None if bias is None else bias[:, None, None].to(query.dtype)
